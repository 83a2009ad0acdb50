# The network of tiny_imagenet_tresnet_64.py without squeeze-and-excite; model.backbone.type=TResNetWithoutBlur removes
# the anti-alias filters in its place.
_base_ = ['tiny_imagenet_tresnet_64.py']
custom_imports = dict(imports=['tresnet_downstream.reproduction.ablations'], allow_failed_imports=False)

model = dict(backbone=dict(type='TResNetWithoutSqueezeExcite'))
