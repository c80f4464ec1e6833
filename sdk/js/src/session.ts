/** Who calls: a fixed token, or a session that renews itself. */

import { ApiError, VoidVMError } from "./errors.js";
import { newKey, type Http } from "./http.js";
import type { Login, LoginRequest } from "./schema.js";
import { orAborted } from "./waiting.js";

/** What a session consists of; kept by programs that want to go on with it later. */
export interface SessionTokens {
  /** The access token, or an API token. */
  readonly token: string;
  /** Renews the access token; works once. */
  readonly refreshToken?: string | undefined;
}

/** How a client signs in. */
export interface Credentials {
  /** An access token or an API token. */
  readonly token?: string | undefined;
  /** The refresh token that came with the access token. */
  readonly refreshToken?: string | undefined;
  /** With a password: signs in when the first call is made, and again when a session has ended. */
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** Is told the tokens whenever there are new ones, to keep them for the next time. */
  readonly onSession?: ((tokens: SessionTokens) => void) | undefined;
}

interface Held {
  readonly token: string;
  readonly refreshToken: string | undefined;
  /** By `performance.now()`. Where the clocks disagree, a refused call tells. */
  readonly renewAt: number;
  /** A refresh whose answer was lost is asked for again under the same key. */
  readonly refreshKey: string;
}

// Renewed so long before its end, or in the last tenth of a short life.
const MARGIN_MS = 30_000;
// What an answer says about a refresh token that is of no use any more.
const SPENT = new Set(["SESSION_ENDED", "UNAUTHORIZED", "IDEMPOTENCY_CONFLICT"]);

/** The one credential of a client; renewals wait for each other, since a refresh token works once. */
export class Session {
  readonly #http: Http;
  readonly #account: LoginRequest | undefined;
  readonly #onSession: ((tokens: SessionTokens) => void) | undefined;
  #held: Held | undefined;
  #renewal: Promise<void> | undefined;

  constructor(http: Http, { token, refreshToken, username, password, onSession }: Credentials) {
    this.#http = http;
    this.#onSession = onSession;
    if (username !== undefined && password !== undefined) this.#account = { username, password };
    if (token !== undefined) {
      this.#held = { token, refreshToken, renewAt: Infinity, refreshKey: newKey() };
    }
  }

  /** The tokens as they are now. */
  get tokens(): SessionTokens | undefined {
    return this.#held && { token: this.#held.token, refreshToken: this.#held.refreshToken };
  }

  /** Sign in and keep the session, not the password. Rejects with `InvalidCredentials`. */
  async login(account: LoginRequest, signal?: AbortSignal): Promise<Login> {
    const login = await this.#http.call("login", { body: account }, { signal });
    this.#keep(login);
    return login;
  }

  /** Forget the tokens. */
  forget(): void {
    this.#held = undefined;
  }

  /** A token that is good, as far as can be known; undefined without any credential. */
  async token(signal?: AbortSignal): Promise<string | undefined> {
    const held = this.#held;
    if (held ? performance.now() >= held.renewAt : this.#account) await this.#renew(signal);
    return this.#held?.token;
  }

  /**
   * After a token was refused: whether there is another one now.
   * Rejects with why the session could not be renewed.
   */
  async renewed(refused: string, signal?: AbortSignal): Promise<boolean> {
    if (this.#held?.token !== refused) return this.#held !== undefined;
    if (this.#held.refreshToken === undefined && !this.#account) return false;
    await this.#renew(signal);
    return true;
  }

  // It goes on for the others when the one who began it gives up.
  #renew(signal?: AbortSignal): Promise<void> {
    this.#renewal ??= this.#obtain().finally(() => (this.#renewal = undefined));
    return orAborted(this.#renewal, signal);
  }

  async #obtain(): Promise<void> {
    const held = this.#held;
    if (held?.refreshToken !== undefined) {
      const { refreshToken, refreshKey: idempotencyKey } = held;
      try {
        const body = { refreshToken };
        this.#keep(await this.#http.call("refresh", { body }, { idempotencyKey }));
        return;
      } catch (error) {
        if (!(error instanceof ApiError && SPENT.has(error.code) && this.#account)) throw error;
      }
    }
    if (!this.#account) throw new VoidVMError("There is no session to renew");
    await this.login(this.#account);
  }

  #keep({ token, refreshToken, expiresAt }: Login): void {
    const lifeMs = Date.parse(expiresAt) - Date.now();
    const marginMs = Math.min(MARGIN_MS, lifeMs / 10);
    // With a clock that is wrong by more than that life, each call would renew.
    const renewAt = lifeMs > 0 ? performance.now() + lifeMs - marginMs : Infinity;
    this.#held = { token, refreshToken, renewAt, refreshKey: newKey() };
    this.#onSession?.({ token, refreshToken });
  }
}
