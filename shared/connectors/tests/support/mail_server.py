"""Mail servers of tests (aiosmtpd). The first argument lists them as JSON, each with its

security            none, starttls or tls (from the first byte)
certificate, key    paths of PEM files
users               passwords by name; with them nobody sends without signing in
mechanisms          the ways to sign in that are offered: PLAIN, LOGIN
smtputf8            whether addresses may be other than ASCII
answers             what it answers instead of what it would: to `STARTTLS`, `AUTH` (a refused sign-in), `MAIL`,
                    `RCPT` (by address) and `DATA` (the whole mail)
injected            what an attacker puts behind the answer to STARTTLS

Prints a JSON value a line: the list of ports, then each sign-in and each mail, as Python's `email` reads it. Ends with its
standard input.
"""

import asyncio
import base64
import json
import logging
import ssl
import sys
from email import message_from_bytes, policy
from email.header import decode_header, make_header

from aiosmtpd.smtp import SMTP, AuthResult

MECHANISMS = ["LOGIN", "PLAIN"]


class Server(SMTP):
    def __init__(self, config, **how):
        handler = Handler(config)
        super().__init__(handler, authenticator=handler.authenticate, **how)
        self.config = config

    async def smtp_STARTTLS(self, arg):
        answer = self.config.get("answers", {}).get("STARTTLS")
        if answer:
            await self.push(answer)
        else:
            await super().smtp_STARTTLS(arg)

    async def push(self, status):
        if isinstance(status, str) and status.startswith("220 Ready"):
            status += self.config.get("injected", "")
        await super().push(status)


class Handler:
    def __init__(self, config):
        self.config = config
        self.answers = config.get("answers", {})

    def authenticate(self, server, session, envelope, mechanism, data):
        login, password = data.login.decode(), data.password.decode()
        is_right = self.config["users"].get(login) == password
        tell(
            self.config,
            "sign-in",
            mechanism=mechanism,
            user=login,
            right=is_right,
            encrypted=session.ssl is not None or self.config["security"] == "tls",
        )
        answer = None if is_right else self.answers.get("AUTH")
        quoted = {"{password}": password, "{sent}": base64.b64encode(f"\0{login}\0{password}".encode()).decode()}
        for name, value in quoted.items():
            answer = answer and answer.replace(name, value)
        # An answer in the place of the server's own is one that it hasn't handled.
        return AuthResult(success=is_right, handled=False, message=answer)

    async def handle_MAIL(self, server, session, envelope, address, options):
        if "MAIL" in self.answers:
            return self.answers["MAIL"]
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        answer = self.answers.get("RCPT", {}).get(address)
        if answer:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if "DATA" in self.answers:
            return self.answers["DATA"]
        content = envelope.original_content
        message = message_from_bytes(content, policy=policy.default)
        tell(
            self.config,
            "mail",
            sender=envelope.mail_from,
            recipients=envelope.rcpt_tos,
            headers=[[name, decoded(value)] for name, value in message.raw_items()],
            defects=[str(defect) for part in message.walk() for defect in part.defects],
            content=read(message),
            raw=content.decode("latin-1"),
        )
        return "250 2.0.0 taken as 4711"


def decoded(value):
    """A header's text: on one line, without encoded words (RFC 2047)."""
    return str(make_header(decode_header("".join(value.splitlines()))))


def read(part):
    """A part's type with its content: parts, text (its lines ended by a line feed, the last one by nothing) or base64."""
    if part.is_multipart():
        return {"type": part.get_content_type(), "parts": [read(inner) for inner in part.iter_parts()]}
    read_part = {"type": part.get_content_type()}
    if part.get_content_disposition():
        read_part |= {"disposition": part.get_content_disposition(), "filename": part.get_filename()}
    if part.get_content_maintype() == "text":
        return read_part | {"text": part.get_content().replace("\r\n", "\n").rstrip("\n")}
    return read_part | {"base64": base64.b64encode(part.get_payload(decode=True)).decode()}


def tell(config, event, **what):
    print(json.dumps({"server": config["name"], "event": event, **what}), flush=True)


async def start(config):
    loop = asyncio.get_running_loop()
    context = None
    if config["security"] != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config["certificate"], config["key"])
    from_the_start = config["security"] == "tls"
    offered = config.get("mechanisms", MECHANISMS)

    def protocol():
        return Server(
            config,
            hostname="mail.test",
            enable_SMTPUTF8=config.get("smtputf8", False),
            tls_context=None if from_the_start else context,
            auth_required="users" in config,
            auth_require_tls=not from_the_start,
            auth_exclude_mechanism=[name for name in MECHANISMS if name not in offered],
            loop=loop,
        )

    return await loop.create_server(protocol, "127.0.0.1", 0, ssl=context if from_the_start else None)


async def main():
    servers = [await start(config) for config in json.loads(sys.argv[1])]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    # What goes wrong on a connection is the client's to tell.
    logging.disable(logging.CRITICAL)
    asyncio.run(main())
