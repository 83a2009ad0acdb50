"""The families of detectors in MMDetection 3.3: a config of each, and its changes for a TResNet backbone."""

from typing import NamedTuple


class Family(NamedTuple):
    """A family of detectors.

    Attributes:
        name: as the paper has it.
        config: of MMDetection, without its suffix.
        changes: further ``--cfg-options`` beside the backbone and the neck's channels.
        fails: why a training of it cannot run here; empty if it runs.
    """

    name: str
    config: str
    changes: tuple[str, ...] = ()
    fails: str = ""


FAMILIES = (
    Family("ATSS", "atss/atss_r50_fpn_1x_coco"),
    Family("AutoAssign", "autoassign/autoassign_r50-caffe_fpn_1x_coco"),
    Family("BoxInst", "boxinst/boxinst_r50_fpn_ms-90k_coco", fails="not tried: needs scikit-image"),
    Family("Cascade R-CNN", "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco"),
    Family("Cascade RPN", "cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco"),
    Family("CenterNet (update)", "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco"),
    Family("CondInst", "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance"),
    Family("Conditional DETR", "conditional_detr/conditional-detr_r50_8xb2-50e_coco"),
    Family("DAB-DETR", "dab_detr/dab-detr_r50_8xb2-50e_coco"),
    Family("DDOD", "ddod/ddod_r50_fpn_1x_coco"),
    Family("DDQ", "ddq/ddq-detr-4scale_r50_8xb2-12e_coco"),
    Family("Deformable DETR", "deformable_detr/deformable-detr_r50_16xb2-50e_coco"),
    Family("DETR", "detr/detr_r50_8xb2-150e_coco"),
    Family("DINO", "dino/dino-4scale_r50_8xb2-12e_coco", ("model.num_queries=40", "model.test_cfg.max_per_img=40")),
    Family("Double-Head R-CNN", "double_heads/dh-faster-rcnn_r50_fpn_1x_coco"),
    Family("DyHead", "dyhead/atss_r50_fpn_dyhead_1x_coco", ("model.neck.0.in_channels=None",)),
    Family("Dynamic R-CNN", "dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco"),
    Family("Faster R-CNN", "faster_rcnn/faster-rcnn_r50_fpn_1x_coco"),
    Family("FCOS", "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco"),
    Family("FoveaBox", "foveabox/fovea_r50_fpn_4xb4-1x_coco"),
    Family("FreeAnchor", "free_anchor/freeanchor_r50_fpn_1x_coco"),
    Family("FSAF", "fsaf/fsaf_r50_fpn_1x_coco"),
    Family("GFL", "gfl/gfl_r50_fpn_1x_coco"),
    Family("GHM", "ghm/retinanet_r50_fpn_ghm-1x_coco"),
    Family("Grid R-CNN", "grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco"),
    Family("GRoIE", "groie/faste-rcnn_r50_fpn_groie_1x_coco"),
    Family("Guided Anchoring", "guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco"),
    Family("HTC", "htc/htc-without-semantic_r50_fpn_1x_coco"),
    Family("LAD", "lad/lad_r50-paa-r101_fpn_2xb8_coco_1x", fails="not tried: its teacher's weights are downloaded"),
    Family("LD", "ld/ld_r50-gflv1-r101_fpn_1x_coco", fails="not tried: its teacher's weights are downloaded"),
    Family("Libra R-CNN", "libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco", ("model.neck.0.in_channels=None",)),
    Family(
        "Mask2Former",
        "mask2former/mask2former_r50_8xb2-lsj-50e_coco",
        ("model.panoptic_head.in_channels=[8,16,128,256]",),
    ),
    Family("Mask R-CNN", "mask_rcnn/mask-rcnn_r50_fpn_1x_coco"),
    Family("Mask Scoring R-CNN", "ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco"),
    Family("NAS-FCOS", "nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco"),
    Family("NAS-FPN", "nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco"),
    Family("PAA", "paa/paa_r50_fpn_1x_coco"),
    Family("PAFPN", "pafpn/faster-rcnn_r50_pafpn_1x_coco"),
    Family("PISA", "pisa/faster-rcnn_r50_fpn_pisa_1x_coco"),
    Family("PointRend", "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco"),
    Family(
        "QueryInst",
        "queryinst/queryinst_r50_fpn_1x_coco",
        fails="MMDetection cannot draw masks on a CPU if every box lies outside the image, as with untrained weights",
    ),
    Family("RepPoints", "reppoints/reppoints-moment_r50_fpn_1x_coco"),
    Family("RetinaNet", "retinanet/retinanet_r50_fpn_1x_coco"),
    Family("RTMDet", "rtmdet/rtmdet_tiny_8xb32-300e_coco"),
    Family("SABL", "sabl/sabl-faster-rcnn_r50_fpn_1x_coco"),
    Family("SCNet", "scnet/scnet_r50_fpn_1x_coco", fails="not tried: its data has maps of stuff beside the boxes"),
    Family("SOLO", "solo/solo_r50_fpn_1x_coco"),
    Family("SOLOv2", "solov2/solov2_r50_fpn_1x_coco"),
    Family("Sparse R-CNN", "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco"),
    Family("SSD", "ssd/ssd300_coco", fails="MMDetection 3.3 itself cannot predict with it: SSDHead has no `loss_cls`"),
    Family("TOOD", "tood/tood_r50_fpn_1x_coco"),
    Family("VarifocalNet", "vfnet/vfnet_r50_fpn_1x_coco"),
    Family("YOLACT", "yolact/yolact_r50_1xb8-55e_coco"),
    Family("YOLOF", "yolof/yolof_r50-c5_8xb8-1x_coco", ("model.neck.in_channels=256",)),
    Family("YOLOv3", "yolo/yolov3_d53_8xb8-320-273e_coco", ("model.neck.in_channels=[256,128,16]",)),
    Family("YOLOX", "yolox/yolox_tiny_8xb8-300e_coco"),
)


def table() -> str:
    """The rows of docs/extending/detector.md."""
    rows = [f"| {each.name} | `{each.config}.py` | {each.fails or 'works'} |" for each in FAMILIES]
    return "\n".join(["| family | MMDetection's config | with TResNet |", "|---|---|---|", *rows])
