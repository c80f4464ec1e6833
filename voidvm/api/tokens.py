"""API tokens of the caller."""

from __future__ import annotations

from voidvm import errors
from voidvm.api.routing import Access, Answer, Call, Nothing, endpoint
from voidvm.domain.token import ApiToken, ApiTokenCreate, NewApiToken
from voidvm.domain.vm import Value


class ApiTokenList(Value, frozen=True, kw_only=True):
    """The caller's API tokens."""

    tokens: list[ApiToken]


@endpoint("GET", "/auth/tokens", access=Access.SIGNED_IN, returns=ApiTokenList)
async def list_tokens(call: Call[Nothing, Nothing]) -> Answer:
    """List the caller's API tokens, without their secrets."""
    return Answer(data=ApiTokenList(tokens=await call.services.tokens.of_caller(call.principal)))


@endpoint(
    "POST",
    "/auth/tokens",
    access=Access.SIGNED_IN,
    body=ApiTokenCreate,
    returns=NewApiToken,
    status=201,
    done=("Token made: it is shown only now.", "令牌已创建：仅显示这一次。"),
    errors=(errors.NameTaken, errors.Forbidden),
    is_secret=True,
)
async def create_token(call: Call[ApiTokenCreate, Nothing]) -> Answer:
    """Make an API token; it works wherever an access token does."""
    token = await call.services.tokens.create(call.principal, call.body)
    call.request.ctx.target = token.id
    return Answer(data=token)


@endpoint(
    "DELETE",
    "/auth/tokens/{token}",
    access=Access.SIGNED_IN,
    done=("Token revoked.", "令牌已吊销。"),
    errors=(errors.TokenNotFound, errors.Forbidden, errors.PreconditionFailed),
)
async def revoke_token(call: Call[Nothing, Nothing]) -> Answer:
    """End an API token at once, its sockets too."""
    await call.services.tokens.revoke(
        call.principal, call.path["token"], precondition=call.precondition
    )
    return Answer(data=None)
