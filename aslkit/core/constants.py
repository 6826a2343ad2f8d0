"""Constants that several packages and the options of the commands share; without numpy."""

ATT_BOUNDS_S = (0.1, 4.0)  # range of the ATT search
LONGEST_DELAY_S = 20.0  # a longer PLD or ATT is probably given in milliseconds
T1_TISSUE_BOUNDS_S = (0.8, 2.0)  # of a free tissue T1: white matter at 1.5 T to cortex at 7 T
TYPICAL_ATT_S = 1.3  # grey matter of healthy adults; assumed where the data do not determine ATT
ASSUMED_ATT_HALF_WIDTH_S = 1.0  # an assumed ATT lies within TYPICAL_ATT_S ± this
N_ARTERIAL_PARAMETERS = 4  # CBF, ATT, aBV and aBAT
MIN_CBF = 5.0  # ml/100 g/min; ATT is compared with the truth where the true CBF is larger
OUTLIER_Z = 5.0  # robust z above which a control-label pair is an outlier
Z_95 = 1.96  # standard deviations: mean ± 1.96 sd holds 95 % of a Gaussian
