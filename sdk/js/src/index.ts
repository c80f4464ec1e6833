/**
 * Client for VoidVM: virtual machines, their serial consoles and events.
 *
 * @packageDocumentation
 */

export { etagOf } from "./answers.js";
export { VoidVMClient, type ClientOptions } from "./client.js";
export * from "./codes.js";
export { Console, type ConsoleNotice, type ConsoleOptions } from "./console.js";
export type { Disks } from "./disks.js";
export {
  ApiError,
  ConnectionFailed,
  OperationFailed,
  TimedOut,
  VoidVMError,
  type ErrorBody,
} from "./errors.js";
export { EventStream, type Events, type EventsOptions } from "./events.js";
export type { HttpOptions, SendOptions } from "./http.js";
export type { Images } from "./images.js";
export type { LinkOptions } from "./link.js";
export { Live, type ControlOptions, type Pushes, type SubscribeOptions } from "./live.js";
export { Operation, type Operations, type OperationWaitOptions } from "./operations.js";
export { List, ListPage } from "./pages.js";
export type * from "./schema.js";
export type { Credentials, SessionTokens } from "./session.js";
export type { Subscription } from "./subscription.js";
export type { System } from "./system.js";
export type {
  ActionOptions,
  Body,
  CallOptions,
  ChangeOptions,
  Data,
  Input,
  OperationId,
  Query,
  Ref,
} from "./types.js";
export type { Found } from "./unread.js";
export type { Source, UploadOptions } from "./uploads.js";
export type { Auth, Tokens, Users } from "./users.js";
export type { ConsoleLog, PowerActions, Vms } from "./vms.js";
export type { WebSocketClass, WebSocketLike } from "./websocket.js";
