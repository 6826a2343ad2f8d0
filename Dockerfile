# aslkit as a BIDS App: CBF and ATT maps of every scan of a data set.
#   docker build -t aslkit .
#   docker run --rm -v /data/study:/bids:ro -v /data/maps:/out aslkit /bids /out participant
# For a smaller image without GPU support, name the index of torch's CPU builds:
#   docker build --build-arg TORCH_OPTIONS="--index-url …" -t aslkit .
FROM python:3.13-slim
ARG TORCH_OPTIONS=""
RUN pip install --no-cache-dir $TORCH_OPTIONS torch==2.13.0
COPY . /src
RUN pip install --no-cache-dir /src && rm -r /src
WORKDIR /out
ENTRYPOINT ["asl_predict"]
CMD ["--help"]
