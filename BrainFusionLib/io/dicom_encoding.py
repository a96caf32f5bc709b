"""DICOM files of one series, written quickly: what all of them share is encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

# What differs from file to file; nothing else may change after the first one.
CHANGING = (
    "SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "SourceImageSequence", "ReferencedSeriesSequence",
    "PixelData",
)  # fmt: skip
_PREAMBLE = bytes(128) + b"DICM"


class SeriesWriter:
    """Writes one data set again and again, with other values of the `CHANGING` attributes, as explicit little endian.

    pydicom takes 10 ms a file for encoding all; this takes 2.

    Parameters
    ----------
    dataset
        With its file meta information; 16-bit pixels.
    """

    def __init__(self, dataset: Dataset) -> None:
        from pydicom.charset import convert_encodings
        from pydicom.tag import Tag

        self._dataset = dataset
        self._encodings = convert_encodings(dataset.get("SpecificCharacterSet", "ISO_IR 6"))
        self._changing = {Tag(keyword) for keyword in CHANGING}
        self._shared = {e.tag: self._encoded(e) for e in dataset if e.tag not in self._changing}

    def __call__(self, path: Path) -> None:
        """Write the data set as it is now.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        from pydicom.filebase import DicomBytesIO
        from pydicom.filewriter import write_file_meta_info

        meta = DicomBytesIO()
        write_file_meta_info(meta, self._dataset.file_meta, enforce_standard=True)
        found = {tag: self._dataset[tag] for tag in self._changing if tag in self._dataset}
        elements = {**self._shared, **{tag: self._encoded(element) for tag, element in found.items()}}
        content = b"".join(elements[tag] for tag in sorted(elements))
        path.write_bytes(_PREAMBLE + meta.getvalue() + content)

    def _encoded(self, element: DataElement) -> bytes:
        from pydicom.dataelem import DataElement
        from pydicom.filebase import DicomBytesIO
        from pydicom.filewriter import write_data_element

        if element.keyword == "PixelData":
            element = DataElement(element.tag, "OW", element.value)
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_data_element(buffer, element, self._encodings)
        encoded: bytes = buffer.getvalue()
        return encoded
