# The digits, long-tailed: a training image gets a 0 a hundred times as often as a 9; see docs/imbalance.md.
_base_ = ['digits_tresnet.py']

data_root = 'data/digits_long_tail'
data_source = 'tresnet digits --long-tail 100 --out data/digits_long_tail makes it'
