"""Speed and memory of networks, exported files and joint models, beside other implementations in the same run."""
