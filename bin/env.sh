# Other scripts source this file. It changes to the repository, makes ./.venv if needed and puts it
# first on PATH. It needs the network only to install.
# PYTHON=/path/to/python3 chooses the interpreter.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
TORCH=2.13.0 # version of the tests

is_recent_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if is_recent_python "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "aslkit needs Python 3.11 or later; found: $(python3 --version 2>&1 || true)." >&2
    echo "Install one, or name it: PYTHON=/path/to/python3.11 bash $0" >&2
    return 1
}

environment_stamp() {
    echo "$PWD"
    cat setup.cfg pyproject.toml bin/env.sh | cksum
}

is_environment_current() {
    [ "$(cat .venv/stamp 2>/dev/null)" = "$(environment_stamp)" ] && is_recent_python .venv/bin/python
}

make_environment() {
    local python
    python=$(find_python) || return 1
    echo "Installing aslkit and its dependencies into $PWD/.venv, once:"
    echo "2 to 10 minutes, 2 GB of disk (7 GB where pip takes a build of torch for GPUs)"
    rm -f .venv/stamp
    if ! [ -e .venv/home ] || [ "$(cat .venv/home)" != "$PWD" ] || ! is_recent_python .venv/bin/python; then
        "$python" -m venv --clear .venv || {
            echo "No virtual environment could be made; on Debian or Ubuntu: apt install python3-venv" >&2
            return 1
        }
        echo "$PWD" >.venv/home
    fi
    .venv/bin/python -m pip install --quiet "torch==$TORCH" || return 1
    .venv/bin/python -m pip install --quiet --editable '.[dev,docs]' || return 1
    environment_stamp >.venv/stamp
}

ensure_environment() {
    is_environment_current && return
    ( # one installation at a time
        if command -v flock >/dev/null && ! flock --nonblock 9; then
            echo "Waiting for another installation into $PWD/.venv"
            flock 9
        fi
        is_environment_current || make_environment
    ) 9>.venv.lock
}

ensure_environment || exit 1
export PATH="$PWD/.venv/bin:$PATH"
