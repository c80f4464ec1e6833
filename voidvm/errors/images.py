"""What can go wrong with images, downloads and uploads."""

from __future__ import annotations

from voidvm.errors.base import VoidVMError


class ImageInvalid(VoidVMError):
    """The file is no image, or one that is not safe to open; `details` says what is wrong."""

    code, status = "IMAGE_INVALID", 400
    en, zh = "This file cannot be used as an image.", "此文件不能用作镜像。"


class ChecksumMismatch(VoidVMError):
    """The bytes that arrived are not those that the checksum belongs to; `details` has both."""

    code, status = "CHECKSUM_MISMATCH", 400
    en, zh = "The checksum does not match.", "校验和不匹配。"
    hint = "Compare it with the publisher's list; the file may have been replaced by a newer one."


class UrlRefused(VoidVMError):
    """The service does not fetch from there; `details` says why."""

    code, status = "URL_REFUSED", 400
    en, zh = "VoidVM does not fetch from this URL.", "VoidVM 不会从该 URL 下载。"


class ImageNotFound(VoidVMError):
    """There is no such image, or it belongs to somebody else."""

    code, status = "IMAGE_NOT_FOUND", 404
    en, zh = "There is no image '{image}'.", "没有镜像“{image}”。"


class UploadNotFound(VoidVMError):
    """There is no such upload, or it is complete, or it is somebody else's."""

    code, status = "UPLOAD_NOT_FOUND", 404
    en, zh = "There is no upload '{upload}'.", "没有上传“{upload}”。"


class ImageInUse(VoidVMError):
    """VMs are made from the image; `details` names them."""

    code, status = "IMAGE_IN_USE", 409
    en, zh = "The image '{image}' is in use.", "镜像“{image}”正在使用中。"
    hint = "Delete the VMs that are made from it first."


class UploadOffsetConflict(VoidVMError):
    """The upload stands elsewhere; `details` says where."""

    code, status, retryable = "UPLOAD_OFFSET_CONFLICT", 409, True
    en, zh = "The upload goes on at byte {offset}.", "上传应从字节 {offset} 继续。"
    hint = "GET the upload for its offset and go on from there."


class ImageNotReady(VoidVMError):
    """The catalogue knows the image, but it is not on this host yet."""

    code, status = "IMAGE_NOT_READY", 409
    en, zh = "The image '{image}' is not on this host yet.", "镜像“{image}”尚未在本机上。"


class ImageTooLarge(VoidVMError):
    """The image is larger than allowed, packed, unpacked or as a disk."""

    code, status = "IMAGE_TOO_LARGE", 413
    en, zh = "The image is larger than {limit} bytes.", "镜像超过 {limit} 字节。"


class DownloadFailed(VoidVMError):
    """The server could not be reached, or broke off too often; `details` has the last reason."""

    code, status, retryable = "DOWNLOAD_FAILED", 502, True
    en, zh = "The download from {host} failed.", "从 {host} 下载失败。"


class DownloadRefused(VoidVMError):
    """The server answered, but not with the file; `details` has its answer."""

    code, status = "DOWNLOAD_REFUSED", 502
    en, zh = "{host} did not give the file.", "{host} 未提供该文件。"
    hint = "Open the URL in a browser: it may have moved."
