"""What prediction is with any model: pictures brought to the size of a network, and its answers as lines and drawings.

Plain numpy, OpenCV and Pillow: nothing here imports torch, MMEngine or Albumentations.
"""
