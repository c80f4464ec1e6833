/** People and programs that may call: the caller itself, its API tokens, and users for admins. */

import type { Http } from "./http.js";
import { List, ListPage } from "./pages.js";
import type {
  ApiToken,
  ApiTokenCreate,
  Login,
  LoginRequest,
  Me,
  MePatch,
  NewApiToken,
  PermissionInfo,
  RoleInfo,
  User,
  UserCreate,
  UserPatch,
  UserQuery,
} from "./schema.js";
import type { Session, SessionTokens } from "./session.js";
import { idOf, type ActionOptions, type CallOptions, type ChangeOptions, type Ref } from "./types.js";

/** `client.auth`: signing in and out, and the caller's own profile. */
export class Auth {
  readonly #http: Http;
  readonly #session: Session;

  /** @internal */
  constructor(http: Http, session: Session) {
    this.#http = http;
    this.#session = session;
  }

  /** The tokens of the session, to go on with it elsewhere; undefined before it has begun. */
  get tokens(): SessionTokens | undefined {
    return this.#session.tokens;
  }

  /**
   * Sign in. The client keeps the session and renews it by itself, but not the password.
   * Rejects with `InvalidCredentials`.
   */
  login(account: LoginRequest, options: CallOptions = {}): Promise<Login> {
    return this.#session.login(account, options.signal);
  }

  /** End the session at once, its sockets too. */
  async logout(options?: CallOptions): Promise<void> {
    await this.#http.call("logout", {}, options);
    this.#session.forget();
  }

  /** The caller's profile: what it may, its quota and what of that is used. */
  me(options?: CallOptions): Promise<Me> {
    return this.#http.call("get_me", {}, options);
  }

  /** Change email, language or password; a new password ends the caller's other sessions. */
  updateMe(patch: MePatch, options?: ChangeOptions): Promise<Me> {
    return this.#http.call("change_me", { body: patch }, options);
  }
}

/** `client.tokens`: the caller's API tokens. */
export class Tokens {
  readonly #http: Http;

  /** @internal */
  constructor(http: Http) {
    this.#http = http;
  }

  /** List them, without their secrets. */
  async list(options?: CallOptions): Promise<readonly ApiToken[]> {
    return (await this.#http.call("list_tokens", {}, options)).tokens;
  }

  /** Make one; its secret is in this answer only. */
  create(token: ApiTokenCreate, options?: ActionOptions): Promise<NewApiToken> {
    return this.#http.call("create_token", { body: token }, options);
  }

  /** End one at once, its sockets too. */
  async revoke(token: Ref, options?: ChangeOptions): Promise<void> {
    await this.#http.call("revoke_token", { path: { token: idOf(token) } }, options);
  }
}

/** `client.users`, for admins; and what users may be permitted. */
export class Users {
  readonly #http: Http;

  /** @internal */
  constructor(http: Http) {
    this.#http = http;
  }

  /** List the users, oldest first. */
  list(query: UserQuery = {}, options?: CallOptions): List<User> {
    return new List(async (page = query.page) => {
      const found = await this.#http.call("list_users", { query: { ...query, page } }, options);
      return new ListPage(found.users, found.pagination);
    });
  }

  /** Make a user. */
  create(user: UserCreate, options?: ActionOptions): Promise<User> {
    return this.#http.call("create_user", { body: user }, options);
  }

  /** One user, by id or name. */
  get(user: Ref, options?: CallOptions): Promise<User> {
    return this.#http.call("get_user", { path: { user: idOf(user) } }, options);
  }

  /** Change a user; what it may is different at once, on open sockets too. */
  update(user: Ref, patch: UserPatch, options?: ChangeOptions): Promise<User> {
    return this.#http.call("change_user", { path: { user: idOf(user) }, body: patch }, options);
  }

  /** Delete a user; what it owns goes to `transferTo`, or must have been deleted before. */
  async delete(
    user: Ref,
    { transferTo, ...options }: ChangeOptions & { readonly transferTo?: Ref } = {},
  ): Promise<void> {
    const query = transferTo === undefined ? {} : { transferTo: idOf(transferTo) };
    await this.#http.call("delete_user", { path: { user: idOf(user) }, query }, options);
  }

  /** Every permission that there is. */
  async permissions(options?: CallOptions): Promise<readonly PermissionInfo[]> {
    return (await this.#http.call("list_permissions", {}, options)).permissions;
  }

  /** Every role that there is. */
  async roles(options?: CallOptions): Promise<readonly RoleInfo[]> {
    return (await this.#http.call("list_roles", {}, options)).roles;
  }
}
