"""(c) Stock deduction that makes an order: number, details, queue and time, all or nothing."""

import time

from harness.workers import at_once

# Stock, orders and their queue share the tag {item}, hence one shard and one unit.
PLACE_ORDER = """
local stock = tonumber(redis.call('GET', KEYS[1]) or '0')
local wanted = tonumber(ARGV[2])
if stock < wanted then
  return redis.error_reply('SOLDOUT only ' .. stock .. ' left')
end
redis.call('DECRBY', KEYS[1], wanted)
local number = redis.call('INCR', KEYS[2])
local now = redis.call('TIME')
local order = KEYS[3] .. number
redis.call('HSET', order, 'customer', ARGV[1], 'quantity', wanted, 'seconds', now[1], 'micros', now[2])
redis.call('LPUSH', KEYS[4], number)
return number
"""


class Shop:
    """One item's stock and the orders for it."""

    def __init__(self, client, item):
        self.client = client
        self.stock = f"{{{item}}}:stock"
        self.last_number = f"{{{item}}}:order:last"
        self.order_prefix = f"{{{item}}}:order:"
        self.queue = f"{{{item}}}:orders"
        self._place = client.register_script(PLACE_ORDER)

    def order(self, customer, quantity):
        """The order's number, or None when the stock does not suffice."""
        keys = [self.stock, self.last_number, self.order_prefix, self.queue]
        try:
            return self._place(keys=keys, args=[customer, quantity])
        except Exception as error:
            if "SOLDOUT" in str(error):
                return None
            raise


def test_every_unit_is_sold_once_and_every_order_is_whole(cluster):
    with cluster.client() as client:
        shop = Shop(client, "chair")
        client.set(shop.stock, 100)
        before = int(time.time())

        def customers(number):
            with cluster.client() as own_client:
                own_shop = Shop(own_client, "chair")
                orders = [own_shop.order(f"customer-{number}-{i}", 1 + i % 3) for i in range(10)]
                return [order for order in orders if order is not None]

        numbers = sorted(number for found in at_once(16, customers) for number in found)

        # Numbers without gap or repetition, each of them in the queue.
        assert numbers == list(range(1, len(numbers) + 1))
        assert client.get(shop.last_number) == str(len(numbers))
        queue = [int(number) for number in client.lrange(shop.queue, 0, -1)]
        assert queue == numbers[::-1], "newest first"

        # What was sold is what is missing, and no order is torn.
        orders = [client.hgetall(f"{shop.order_prefix}{number}") for number in numbers]
        assert all(
            order.keys() == {"customer", "quantity", "seconds", "micros"} for order in orders
        )
        sold = sum(int(order["quantity"]) for order in orders)
        assert sold + int(client.get(shop.stock)) == 100

        # The clock of a shard never runs backwards.
        stamps = [(int(order["seconds"]), int(order["micros"])) for order in orders]
        assert stamps == sorted(stamps)
        assert before <= stamps[0][0] <= stamps[-1][0] <= int(time.time()) + 1


def test_a_refused_order_leaves_no_trace(client):
    shop = Shop(client, "table")
    client.set(shop.stock, 1)
    assert shop.order("greedy", 2) is None
    assert client.get(shop.stock) == "1"
    assert client.exists(shop.last_number, shop.queue) == 0
    assert shop.order("modest", 1) == 1
