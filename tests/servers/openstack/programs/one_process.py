"""Lets several OpenStack services live in one process, with SQLite and without a message broker.

Import it before a service starts. Two things need help. SQLite gives up with "database is
locked" when a transaction that began by reading wants to write while another thread does, so
every transaction takes the write lock at once. And oslo.messaging's in-process transport hands
over the very objects, which a broker would have turned into JSON.
"""

from __future__ import annotations

from oslo_messaging._drivers import impl_fake
from oslo_serialization import jsonutils
from sqlalchemy import engine, event

_PRAGMAS = ("busy_timeout = 30000", "journal_mode = WAL", "synchronous = OFF")


@event.listens_for(engine.Engine, "connect")
def _prepare(connection, record):
    if type(connection).__module__.startswith("sqlite3"):
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")


@event.listens_for(engine.Engine, "begin")
def _take_write_lock(connection):
    if connection.dialect.name == "sqlite" and "in_transaction" not in connection.info:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        # oslo.db reads this and leaves out a BEGIN of its own.
        connection.info["in_transaction"] = True


def _through_json(value):
    return jsonutils.loads(jsonutils.dumps(value))


_deliver = impl_fake.FakeExchange.deliver_message
_reply = impl_fake.FakeIncomingMessage.reply


def _deliver_copy(self, topic, context, message, *args, **kwargs):
    return _deliver(self, topic, _through_json(context), _through_json(message), *args, **kwargs)


def _reply_copy(self, reply=None, failure=None):
    return _reply(self, _through_json(reply), failure)


impl_fake.FakeExchange.deliver_message = _deliver_copy
impl_fake.FakeIncomingMessage.reply = _reply_copy
