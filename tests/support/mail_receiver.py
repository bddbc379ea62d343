"""A mail server for tests: real SMTP with STARTTLS (or TLS from the start, or neither), a login, and manners that the test sets.

Arguments: CERT KEY MANNER-FILE OUT-FILE starttls|implicit|plain. Prints its port. Each mail that it took is one line of JSON in
OUT-FILE; each command that it heard is one in OUT-FILE.heard.

Manners: take; hang; repeat (the password, when a login fails); or the answer to DATA. Recipients gone@… and busy@… are refused.
"""

import asyncio
import email
import email.policy
import json
import logging
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

# Whatever it remarks on, tests provoke.
logging.disable(logging.CRITICAL)

cert, key, manner_file, out_file, tls_kind = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)


def manner():
    with open(manner_file, encoding="utf-8") as file:
        return file.read().strip()


def note(file_name, value):
    with open(file_name, "a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def heard(command):
    note(out_file + ".heard", command)


class Handler:
    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        heard("EHLO")
        session.host_name = hostname
        return responses

    async def handle_MAIL(self, server, session, envelope, address, options):
        heard("MAIL")
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        heard("RCPT")
        if address.startswith("gone@"):
            return "550 5.1.1 no such user here"
        if address.startswith("busy@"):
            return "451 4.7.1 come again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        heard("DATA")
        while manner() == "hang":
            await asyncio.sleep(0.02)
        if manner() not in ("take", "repeat"):
            return manner()
        mail = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
        note(
            out_file,
            {
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "is_ascii": envelope.original_content.isascii(),
                "mime": mail["MIME-Version"],
                "header_from": mail["From"],
                "subject": mail["Subject"],
                "auto": mail["Auto-Submitted"],
                "id": mail["Message-ID"],
                "references": mail["References"],
                "body": mail.get_content(),
                "tls": session.ssl is not None or tls_kind == "implicit",
                "authenticated": bool(session.authenticated),
            },
        )
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    heard("AUTH")
    password = os.environ["MAIL_PASSWORD"].encode()
    good = isinstance(data, LoginPassword) and data.login == b"planb" and data.password == password
    if not good and manner() == "repeat":
        return AuthResult(success=False, handled=False, message=f"535 5.7.8 {data.password.decode()} is wrong")
    # handled=False: the server says itself what it says to a wrong password.
    return AuthResult(success=good, handled=False)


def session():
    starttls = tls_kind == "starttls"
    return SMTP(
        Handler(),
        hostname="localhost",
        tls_context=context if starttls else None,
        require_starttls=starttls,
        authenticator=authenticate,
        auth_required=tls_kind != "plain",
        auth_require_tls=starttls,
    )


async def main():
    loop = asyncio.get_running_loop()
    implicit = context if tls_kind == "implicit" else None
    server = await loop.create_server(session, "127.0.0.1", 0, ssl=implicit)
    port = server.sockets[0].getsockname()[1]
    # This machine too, by a name that the certificate does not have.
    await loop.create_server(session, "127.0.0.2", port, ssl=implicit)
    print(port, flush=True)
    await server.serve_forever()


asyncio.run(main())
