"""The peer in grpcio: asyncio, and every CheckOrder gets the same bytes.

echo_grpcio.py REPLY_FILE    listens on a free port of loopback and prints it
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio


async def main(reply: bytes) -> None:
    async def check_order(request: bytes, context: object) -> bytes:
        return reply

    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(check_order)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "riskd.v1.OrderRiskService", {"CheckOrder": handler}
            ),
        )
    )
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_bytes()))
