// Made by scripts/docs.py from voidvm/errors/; do not edit.

import { ApiError } from "./errors.js";

/** `CHECKSUM_MISMATCH` (400): The bytes that arrived are not those that the checksum belongs to; `details` has both. */
export class ChecksumMismatch extends ApiError {}

/** `IMAGE_INVALID` (400): The file is no image, or one that is not safe to open; `details` says what is wrong. */
export class ImageInvalid extends ApiError {}

/** `UNKNOWN_OS` (400): `os` is no entry of the image catalogue; `details` names the nearest ones. */
export class UnknownOs extends ApiError {}

/** `URL_REFUSED` (400): The service does not fetch from there; `details` says why. */
export class UrlRefused extends ApiError {}

/** `VALIDATION_ERROR` (400): The input does not fit; `errors` names every field that is wrong. */
export class ValidationFailed extends ApiError {}

/** `INVALID_CREDENTIALS` (401): The user name or the password is wrong; which of them is not said. */
export class InvalidCredentials extends ApiError {}

/** `SESSION_ENDED` (401): The session behind the credential was ended or has run out. */
export class SessionEnded extends ApiError {}

/** `UNAUTHORIZED` (401): No credential, or one that is not valid. */
export class Unauthorized extends ApiError {}

/** `FORBIDDEN` (403): A valid credential without the permission. */
export class Forbidden extends ApiError {}

/** `ORIGIN_REFUSED` (403): A browser page of another origin asked for a WebSocket. */
export class OriginRefused extends ApiError {}

/** `PASSWORD_CHANGE_REQUIRED` (403): The user must change its password before it may do anything else. */
export class PasswordChangeRequired extends ApiError {}

/** `QUOTA_EXCEEDED` (403): The user's plan does not allow more; `details` has the figures. */
export class QuotaExceeded extends ApiError {}

/** `DISK_NOT_FOUND` (404): The VM has no such disk. */
export class DiskNotFound extends ApiError {}

/** `IMAGE_NOT_FOUND` (404): There is no such image, or it belongs to somebody else. */
export class ImageNotFound extends ApiError {}

/** `NOT_FOUND` (404): There is no such address or object. */
export class NotFound extends ApiError {}

/** `OPERATION_NOT_FOUND` (404): There is no such operation, or it is somebody else's, or it ended more than a week ago. */
export class OperationNotFound extends ApiError {}

/** `TOKEN_NOT_FOUND` (404): There is no such API token, or it belongs to somebody else. */
export class TokenNotFound extends ApiError {}

/** `UPLOAD_NOT_FOUND` (404): There is no such upload, or it is complete, or it is somebody else's. */
export class UploadNotFound extends ApiError {}

/** `USER_NOT_FOUND` (404): There is no such user. */
export class UserNotFound extends ApiError {}

/** `VM_NOT_FOUND` (404): There is no such VM, or it belongs to somebody else. */
export class VmNotFound extends ApiError {}

/** `METHOD_NOT_ALLOWED` (405): The address exists but does not know this method. */
export class MethodNotAllowed extends ApiError {}

/** `WAIT_TIMEOUT` (408): What was waited for did not happen in time; `details` says what was missing. */
export class WaitTimeout extends ApiError {}

/** `IDEMPOTENCY_CONFLICT` (409): The idempotency key was used for another request. */
export class IdempotencyConflict extends ApiError {}

/** `IMAGE_IN_USE` (409): VMs are made from the image; `details` names them. */
export class ImageInUse extends ApiError {}

/** `IMAGE_NOT_READY` (409): The catalogue knows the image, but it is not on this host yet. */
export class ImageNotReady extends ApiError {}

/** `LAST_ADMIN` (409): Nobody could administer the service any more. */
export class LastAdmin extends ApiError {}

/** `NAME_TAKEN` (409): The owner has an object of this name already. */
export class NameTaken extends ApiError {}

/** `OPERATION_NOT_CANCELLABLE` (409): The operation has ended, or must not be cut short; `details` is its status. */
export class OperationNotCancellable extends ApiError {}

/** `PLAN_IN_USE` (409): Users have the plan that would be no more; nothing was changed. */
export class PlanInUse extends ApiError {}

/** `PORT_IN_USE` (409): The host port of a forward is taken. */
export class PortInUse extends ApiError {}

/** `SETTING_FIXED` (409): The environment sets the key, and it always wins; nothing was changed. */
export class SettingFixed extends ApiError {}

/** `UPLOAD_OFFSET_CONFLICT` (409): The upload stands elsewhere; `details` says where. */
export class UploadOffsetConflict extends ApiError {}

/** `USER_OWNS_OBJECTS` (409): The user owns VMs or images; `details` says how many. */
export class UserOwnsObjects extends ApiError {}

/** `VM_ALREADY_RUNNING` (409): The VM has a running QEMU already; `details` is its status. */
export class VmAlreadyRunning extends ApiError {}

/** `VM_BUSY` (409): Another job holds the VM; `details` names it. */
export class VmBusy extends ApiError {}

/** `VM_NOT_RUNNING` (409): The VM is not running; `details` is its status. */
export class VmNotRunning extends ApiError {}

/** `VM_STATE_CONFLICT` (409): The VM's status does not allow this; `details` is its status. */
export class VmStateConflict extends ApiError {}

/** `RESYNC_REQUIRED` (410): Events after this place are kept no more, or never were of this database. */
export class ResyncRequired extends ApiError {}

/** `PRECONDITION_FAILED` (412): `If-Match` does not fit the object's `ETag`: somebody has changed it meanwhile. */
export class PreconditionFailed extends ApiError {}

/** `IMAGE_TOO_LARGE` (413): The image is larger than allowed, packed, unpacked or as a disk. */
export class ImageTooLarge extends ApiError {}

/** `PAYLOAD_TOO_LARGE` (413): The body is larger than the limit, or the head has more than 8 KiB. */
export class PayloadTooLarge extends ApiError {}

/** `UNSUPPORTED_MEDIA_TYPE` (415): The body is not JSON. */
export class UnsupportedMediaType extends ApiError {}

/** `RATE_LIMITED` (429): Too many requests or connections. */
export class RateLimited extends ApiError {}

/** `COMMAND_FAILED` (500): QEMU or qemu-img refused a command; `details` is what it said. */
export class CommandFailed extends ApiError {}

/** `INTERNAL_ERROR` (500): Our fault; the log has the traceback under the request id. */
export class InternalError extends ApiError {}

/** `VM_START_FAILED` (500): QEMU ended before its guest ran; `details` is what QEMU said. */
export class VmStartFailed extends ApiError {}

/** `NOT_SUPPORTED` (501): What was asked for is a part of the API that does not exist yet. */
export class NotSupported extends ApiError {}

/** `DOWNLOAD_FAILED` (502): The server could not be reached, or broke off too often; `details` has the last reason. */
export class DownloadFailed extends ApiError {}

/** `DOWNLOAD_REFUSED` (502): The server answered, but not with the file; `details` has its answer. */
export class DownloadRefused extends ApiError {}

/** `DATABASE_UNUSABLE` (503): The database can be read or written no more; guests go on. */
export class DatabaseUnusable extends ApiError {}

/** `SERVICE_UNAVAILABLE` (503): The service is starting or stopping. */
export class ServiceStopping extends ApiError {}

/** `TOO_MANY_FILES` (503): The service, or its host, has as many files open as it may; guests go on. */
export class TooManyFiles extends ApiError {}

/** `VM_UNRESPONSIVE` (503): QEMU did not answer in time. */
export class VmUnresponsive extends ApiError {}

/** `NOT_ENOUGH_MEMORY` (507): The host has less free memory than the VM wants. */
export class NotEnoughMemory extends ApiError {}

/** `NO_SPACE` (507): No space left on the host's disk. */
export class NoSpace extends ApiError {}

/** The class of each code. */
export const CLASSES: Readonly<Record<string, typeof ApiError>> = {
  CHECKSUM_MISMATCH: ChecksumMismatch,
  IMAGE_INVALID: ImageInvalid,
  UNKNOWN_OS: UnknownOs,
  URL_REFUSED: UrlRefused,
  VALIDATION_ERROR: ValidationFailed,
  INVALID_CREDENTIALS: InvalidCredentials,
  SESSION_ENDED: SessionEnded,
  UNAUTHORIZED: Unauthorized,
  FORBIDDEN: Forbidden,
  ORIGIN_REFUSED: OriginRefused,
  PASSWORD_CHANGE_REQUIRED: PasswordChangeRequired,
  QUOTA_EXCEEDED: QuotaExceeded,
  DISK_NOT_FOUND: DiskNotFound,
  IMAGE_NOT_FOUND: ImageNotFound,
  NOT_FOUND: NotFound,
  OPERATION_NOT_FOUND: OperationNotFound,
  TOKEN_NOT_FOUND: TokenNotFound,
  UPLOAD_NOT_FOUND: UploadNotFound,
  USER_NOT_FOUND: UserNotFound,
  VM_NOT_FOUND: VmNotFound,
  METHOD_NOT_ALLOWED: MethodNotAllowed,
  WAIT_TIMEOUT: WaitTimeout,
  IDEMPOTENCY_CONFLICT: IdempotencyConflict,
  IMAGE_IN_USE: ImageInUse,
  IMAGE_NOT_READY: ImageNotReady,
  LAST_ADMIN: LastAdmin,
  NAME_TAKEN: NameTaken,
  OPERATION_NOT_CANCELLABLE: OperationNotCancellable,
  PLAN_IN_USE: PlanInUse,
  PORT_IN_USE: PortInUse,
  SETTING_FIXED: SettingFixed,
  UPLOAD_OFFSET_CONFLICT: UploadOffsetConflict,
  USER_OWNS_OBJECTS: UserOwnsObjects,
  VM_ALREADY_RUNNING: VmAlreadyRunning,
  VM_BUSY: VmBusy,
  VM_NOT_RUNNING: VmNotRunning,
  VM_STATE_CONFLICT: VmStateConflict,
  RESYNC_REQUIRED: ResyncRequired,
  PRECONDITION_FAILED: PreconditionFailed,
  IMAGE_TOO_LARGE: ImageTooLarge,
  PAYLOAD_TOO_LARGE: PayloadTooLarge,
  UNSUPPORTED_MEDIA_TYPE: UnsupportedMediaType,
  RATE_LIMITED: RateLimited,
  COMMAND_FAILED: CommandFailed,
  INTERNAL_ERROR: InternalError,
  VM_START_FAILED: VmStartFailed,
  NOT_SUPPORTED: NotSupported,
  DOWNLOAD_FAILED: DownloadFailed,
  DOWNLOAD_REFUSED: DownloadRefused,
  DATABASE_UNUSABLE: DatabaseUnusable,
  SERVICE_UNAVAILABLE: ServiceStopping,
  TOO_MANY_FILES: TooManyFiles,
  VM_UNRESPONSIVE: VmUnresponsive,
  NOT_ENOUGH_MEMORY: NotEnoughMemory,
  NO_SPACE: NoSpace,
};
