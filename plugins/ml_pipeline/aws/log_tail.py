"""New lines of a job's CloudWatch log, read again and again while the job runs."""

from __future__ import annotations

from typing import Any


class LogTail:
    """The log streams of one job.

    :param client: aiobotocore client of CloudWatch Logs.
    :param group: log group.
    :param prefix: how the names of the job's streams start: one stream per machine.
    """

    def __init__(self, client: Any, group: str, prefix: str) -> None:
        self._client = client
        self._group = group
        self._prefix = prefix
        self._tokens: dict[str, str | None] = {}

    async def read(self) -> list[str]:
        """The lines that came since the last call, oldest first within a machine.

        A job has no stream before its first line: that is no error.
        """
        from botocore.exceptions import ClientError

        lines: list[str] = []
        try:
            await self._find_streams()
            for stream in self._tokens:
                lines += await self._read_stream(stream)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
        return lines

    async def _find_streams(self) -> None:
        arguments = {"logGroupName": self._group, "logStreamNamePrefix": self._prefix}
        response = await self._client.describe_log_streams(**arguments)
        for stream in response.get("logStreams", []):
            self._tokens.setdefault(stream["logStreamName"], None)

    async def _read_stream(self, stream: str) -> list[str]:
        # A machine that a spot job was given anew has a second stream, but it is still the only one.
        several = len({machine_of(known) for known in self._tokens}) > 1
        start = f"[{machine_of(stream)}] " if several else ""
        lines: list[str] = []
        while True:
            arguments: dict[str, Any] = {
                "logGroupName": self._group,
                "logStreamName": stream,
                "startFromHead": True,
            }
            token = self._tokens[stream]
            if token:
                arguments["nextToken"] = token
            response = await self._client.get_log_events(**arguments)
            lines += [f"{start}{event['message']}" for event in response["events"]]
            self._tokens[stream] = response["nextForwardToken"]
            # The end of a stream is where the token stays the same (GetLogEvents API reference).
            if response["nextForwardToken"] == token or not response["events"]:
                return lines


def machine_of(stream: str) -> str:
    """The machine in a stream's name: "algo-2" of "<job>/algo-2-1732312800"."""
    return stream.rpartition("/")[2].rpartition("-")[0]


def last_lines(client: Any, group: str, prefix: str, count: int = 100) -> list[str]:
    """The last `count` lines of each stream under `prefix`, stream after stream, through a boto3 client."""
    streams = client.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]
    lines: list[str] = []
    for stream in streams:
        events = client.get_log_events(
            logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=False, limit=count
        )["events"]
        lines += [event["message"] for event in events]
    return lines
