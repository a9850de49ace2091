"""Clients that know nothing of tier0: libpq's list of hosts, and redis-py asking Sentinel.

Usage: clients.py POSTGRES_URL REDIS_PASSWORD MASTER_NAME SENTINEL... (host:port)

Each writes a counted row or key every 20 ms, and what failed is tried again with a new connection,
which is all that a client has to do. Ends when its input ends, and prints one line of JSON: how many
were written, how many tries failed, the longest time without a write, and what the errors were.
After that it reads everything back, and names how many are missing.
"""

import collections
import json
import select
import sys
import threading
import time

import psycopg2
import redis
import redis.sentinel

OVER = threading.Event()


def write(name, connect, one, found):
    """Write until it is over."""
    session, number, longest, last = None, 0, 0.0, time.monotonic()
    failed, errors = 0, collections.Counter()
    while not OVER.is_set():
        try:
            session = session or connect()
            one(session, number)
        except (psycopg2.Error, redis.RedisError, OSError) as error:
            failed += 1
            errors[type(error).__name__] += 1
            # psycopg2 notices an end only when it is asked for something.
            try:
                session and session.close()
            except (psycopg2.Error, redis.RedisError, OSError):
                pass
            session = None
            time.sleep(0.02)
            continue
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        number += 1
        time.sleep(0.02)
    found[name] = {
        "written": number,
        "failed": failed,
        "longest_ms": round(longest * 1000),
        "errors": dict(errors),
    }


def main():
    """Both kinds at once."""
    url, password, master, *sentinels = sys.argv[1:]
    found = {}

    def postgres():
        session = psycopg2.connect(url, connect_timeout=2)
        session.autocommit = True
        return session

    def row(session, number):
        with session.cursor() as cursor:
            cursor.execute(
                "INSERT INTO foreign_client VALUES (%s) ON CONFLICT DO NOTHING", (number,)
            )

    with postgres().cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS foreign_client (number bigint PRIMARY KEY)")
        cursor.execute("TRUNCATE foreign_client")
    addresses = [(host, int(port)) for host, port in (one.rsplit(":", 1) for one in sentinels)]
    asked = redis.sentinel.Sentinel(addresses, socket_timeout=1)

    def cache():
        return asked.master_for(master, password=password, socket_timeout=2)

    def key(session, number):
        session.set(f"foreign:{number}", number)

    writers = [
        threading.Thread(target=write, args=("postgres", postgres, row, found)),
        threading.Thread(target=write, args=("redis", cache, key, found)),
    ]
    for one in writers:
        one.start()
    print("writing", flush=True)
    # Until whoever started it closes this side.
    while select.select([sys.stdin], [], [], 60)[0] and sys.stdin.readline():
        pass
    OVER.set()
    for one in writers:
        one.join()
    with postgres().cursor() as cursor:
        cursor.execute("SELECT count(*) FROM foreign_client")
        found["postgres"]["missing"] = found["postgres"]["written"] - cursor.fetchone()[0]
    numbers = range(found["redis"]["written"])
    there = cache().mget([f"foreign:{number}" for number in numbers])
    found["redis"]["missing"] = there.count(None)
    print(json.dumps(found), flush=True)


main()
