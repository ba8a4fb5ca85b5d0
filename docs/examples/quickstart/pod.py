#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What runs in a quickstart pod: answers every line and datagram with the pod's name."""
import asyncio
import socket
import sys

NAME = sys.argv[1]
TCP_PORT, UDP_PORT = 8080, 8053


async def on_connection(reader, writer):
    try:
        while line := await reader.readline():
            if line.startswith(b"GET "):
                body = f"{NAME}\n"
                head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write((head + body).encode())
                await writer.drain()
                break
            writer.write(NAME.encode() + b" " + line)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(NAME.encode() + b" " + data, addr)


def datagram_socket(family):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(("", UDP_PORT))
    return s


async def main():
    loop = asyncio.get_running_loop()
    await asyncio.start_server(on_connection, ["0.0.0.0", "::"], TCP_PORT)
    for family in (socket.AF_INET, socket.AF_INET6):
        await loop.create_datagram_endpoint(Datagrams, sock=datagram_socket(family))
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
