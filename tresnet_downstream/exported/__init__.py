"""Opens and runs models in exported files without torch, MMEngine or MMDetection."""

from tresnet_downstream.exported.classifier import ExportedClassifier
from tresnet_downstream.exported.detector import ExportedDetector
from tresnet_downstream.exported.formats import is_exported
from tresnet_downstream.exported.joint import ExportedJoint
from tresnet_downstream.exported.opening import open_exported

__all__ = ["ExportedClassifier", "ExportedDetector", "ExportedJoint", "is_exported", "open_exported"]
