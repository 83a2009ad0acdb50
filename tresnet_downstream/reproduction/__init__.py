"""Small experiments on real images for published claims about TResNet, ASL and ML-Decoder, and a page of results."""
