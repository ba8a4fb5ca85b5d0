#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What runs in a quickstart pod: answers every line and datagram with the pod's name."""
import asyncio
import sys

NAME = sys.argv[1]
TCP_PORT, UDP_PORT = 8080, 8053


async def on_connection(reader, writer):
    try:
        while line := await reader.readline():
            if line.startswith(b"GET "):
                body = f"{NAME}\n"
                writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
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


async def main():
    loop = asyncio.get_running_loop()
    for host in ("0.0.0.0", "::"):
        await asyncio.start_server(on_connection, host, TCP_PORT)
        await loop.create_datagram_endpoint(Datagrams, local_addr=(host, UDP_PORT))
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
