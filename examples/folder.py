"""Judge all videos of a folder by a service, a few at a time: ``python examples/folder.py FOLDER [URL]``."""

import asyncio
import sys
from pathlib import Path

from app.client import AsyncClient, ServiceError

AT_ONCE = 4


async def judge(client: AsyncClient, turns: asyncio.Semaphore, video: Path) -> None:
    """Print what the service says of one video."""
    async with turns:
        try:
            answer = await client.analyze(video)
        except ServiceError as error:
            print(f"{video}: {error.detail}")
        else:
            print(f"{video}: {answer.verdict} ({answer.fake_probability}), {answer.reasons[0].detail}")


async def main(folder: Path, url: str) -> None:
    """All of ``folder``; a service that is busy is asked again."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with AsyncClient(url, retries=20) as client, asyncio.TaskGroup() as group:
        for video in sorted(folder.rglob("*.mp4")):
            group.create_task(judge(client, turns, video))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8000"))
