# The long-tailed digits: in training images a 0 is a hundred times as frequent as a 9; see docs/imbalance.md.
_base_ = ['digits_tresnet.py']

data_root = 'data/digits_long_tail'
data_source = 'tresnet digits --long-tail 100 --out data/digits_long_tail makes it'
