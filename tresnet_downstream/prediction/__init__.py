"""Prediction with any model, in torch or exported: preparation of images, batches, and output as lines and drawings.

These modules use numpy, OpenCV and Pillow. They do not import torch, MMEngine or Albumentations.
"""
