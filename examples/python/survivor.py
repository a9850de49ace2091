#!/usr/bin/env python3
"""An application that survives a failover, as small as it can be: orders in PostgreSQL, each once,
and a note of each in Redis, while the writer moves to the other region or is lost with its region.

docs/writing-an-application.md says why it is written like this. Needs psycopg2 and redis (Debian:
python3-psycopg2, python3-redis).

Usage: survivor.py PREFIX COUNT
  POSTGRES_DSN      host=10.0.1.10,10.0.2.10 port=5432,5432 user=shop password=... dbname=shop
  REDIS_SENTINELS   10.0.1.10:26379,10.0.2.10:26379,10.0.3.10:26379
  REDIS_MASTER      the name that the Sentinels know
  REDIS_PASSWORD    of the data servers
"""

import os
import sys
import time

import psycopg2
import redis
import redis.sentinel

LIMIT = 2          # seconds for one attempt: longer than a move holds clients
PAUSE = 0.05       # before the next one
PATIENCE = 30      # then give up, and say so

TABLE = """CREATE TABLE IF NOT EXISTS example_order
    (name text PRIMARY KEY, placed_at timestamptz NOT NULL DEFAULT clock_timestamp())"""
ORDER = "INSERT INTO example_order (name) VALUES (%s) ON CONFLICT (name) DO NOTHING"
BARRIER = "SELECT pg_logical_emit_message(true, 'example', 'barrier')"


class Unconfirmed(Exception):
    """The commit is on one node only."""


def connect():
    """A session with whichever host takes writes. Everything in it has a limit."""
    connection = psycopg2.connect(
        os.environ["POSTGRES_DSN"],
        target_session_attrs="read-write",   # passes a standby over
        connect_timeout=2,                   # the least that libpq knows
        tcp_user_timeout=3000,               # a host that vanished answers nothing
        keepalives_idle=3, keepalives_interval=1, keepalives_count=2,
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(TABLE)
    return connection


def place(connection, name):
    """Place one order. An error says nothing about whether it is placed; sending it again does."""
    del connection.notices[:]
    with connection.cursor() as cursor:
        cursor.execute(ORDER, (name,))
        if cursor.rowcount == 0:
            # It is there, from an attempt whose answer was lost; that the other region has it is
            # proven by something written after it, and waited for.
            cursor.execute(BARRIER)
    if any("canceling wait for synchronous replication" in one for one in connection.notices):
        raise Unconfirmed(name)


def until_done(attempt, forget):
    """Attempt until it is done; returns how often it was tried again."""
    began = time.monotonic()
    again = 0
    while True:
        try:
            attempt()
            return again
        except (psycopg2.Error, redis.RedisError, OSError, Unconfirmed) as error:
            # Never go on with a session that met an error: it may lead to what is no writer any more.
            forget()
            again += 1
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"given up: {error}") from error
            time.sleep(PAUSE)


class Application:
    """Both connections, each made when it is needed."""

    def __init__(self):
        hosts = [one.rsplit(":", 1) for one in os.environ["REDIS_SENTINELS"].split(",")]
        self.sentinel = redis.sentinel.Sentinel(
            [(host, int(port)) for host, port in hosts],
            socket_timeout=0.5, socket_connect_timeout=0.5,
        )
        self.postgres = None
        self.redis = None

    def order(self, name):
        """One order into PostgreSQL."""
        if self.postgres is None:
            self.postgres = connect()
        place(self.postgres, name)

    def note(self, name):
        """One note into Redis, which counts only once a replica has it."""
        if self.redis is None:
            self.redis = self.sentinel.master_for(
                os.environ["REDIS_MASTER"], password=os.environ["REDIS_PASSWORD"],
                socket_timeout=LIMIT, socket_connect_timeout=0.5,
            )
        with self.redis.pipeline(transaction=False) as pipe:   # both on one connection
            pipe.set(f"example:{name}", name)
            pipe.execute_command("WAIT", 1, 1000)
            replicas = pipe.execute()[1]
        if replicas < 1:
            raise Unconfirmed(name)

    def forget_postgres(self):
        """Another session next time."""
        if self.postgres is not None:
            self.postgres.close()
        self.postgres = None

    def forget_redis(self):
        """Ask the Sentinels next time."""
        if self.redis is not None:
            self.redis.connection_pool.disconnect()
        self.redis = None


def main():
    """Place so many orders, one after the other, each until it is placed."""
    prefix, count = sys.argv[1], int(sys.argv[2])
    application = Application()
    again = 0
    longest = 0.0
    for number in range(count):
        name = f"{prefix}-{number:06}"
        began = time.monotonic()
        again += until_done(lambda: application.order(name), application.forget_postgres)
        again += until_done(lambda: application.note(name), application.forget_redis)
        longest = max(longest, time.monotonic() - began)
        print(name, flush=True)
        time.sleep(0.02)
    print(f"{count} orders placed, {again} attempts made again, "
          f"longest wait {longest * 1000:.0f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
