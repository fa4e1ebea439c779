"""What subscribers are told of keys: every event of `notify-keyspace-events`, in order, at both kinds of channels."""

import itertools

from situation import question
from sweeps import watched
from sweeps.drawn import RESET

from harness.processes import eventually
from harness.wire import Wire, request, trees

SECONDS_MAX = 20
# All there is: `A` is neither keys that are new nor keys that are missed.
ALL = "KEAnm"

# What `watched` asks, and this. A case begins with the keys of `drawn`.
FURTHER = """
set {k}s v ex 1000
set {k}n v px 100000
set {k}s v exat 9999999999
set {k}n v get
setex {k}n 1000 v
psetex {k}s 100000 v
getset {k}n v
getex {k}s ex 1000 ; getex {k}s ex 1000 ; getex {k}s persist ; getex {k}s persist
getex {k}s exat 1
getex {k}n ex 10
mset {k}n 1 {k}s 2 {k}n 3
mget {k}n {k}s {k}d {k}l
get {k}n
strlen {k}n
getrange {k}n 0 1
substr {k}n 0 1
getbit {k}n 0
bitcount {k}n
bitpos {k}n 1
bitfield {k}n get u8 0
bitfield_ro {k}n get u8 0
bitfield {k}n set u8 0 1
bitfield {k}s set u8 0 1 set u8 8 2
lcs {k}n {k}d
exists {k}n {k}s {k}n
touch {k}n {k}s
type {k}n
ttl {k}n
pttl {k}n
expiretime {k}n
object encoding {k}n
object idletime {k}n
dump {k}n
memory usage {k}n
copy {k}n {k}d
copy {k}s {k}l replace
copy {k}s {k}n
incr {k}n
decr {k}n
decrby {k}s 3
incrbyfloat {k}n 1.5
setbit {k}n 100 0
pfadd {k}n a b
pfadd {k}n
pfadd {k}n a ; pfadd {k}n a
pfadd {k}n a ; pfcount {k}n ; pfcount {k}n
pfcount {k}n
pfcount {k}n {k}d
pfmerge {k}n {k}d
pfadd {k}d x ; pfmerge {k}n {k}d
rpush {k}n 1 2 3
rpushx {k}l 9
llen {k}n
lindex {k}n 0
lrange {k}n 0 -1
lpos {k}n 1
lmove {k}l {k}n right left
lmove {k}l {k}l left right
rpop {k}l 3
lmpop 1 {k}l right count 9
lrem {k}l 0 1 ; lrem {k}l 0 2 ; lrem {k}l 0 3
blpop {k}l 0
brpop {k}n {k}l 0
blmove {k}l {k}n left right 0
brpoplpush {k}l {k}l 0
blmpop 0 1 {k}l left count 3
bzpopmin {k}z 0
bzpopmax {k}n {k}z 0
bzmpop 0 1 {k}z max count 3
hget {k}n f
hmget {k}n f g
hlen {k}n
hexists {k}n f
hstrlen {k}n f
hkeys {k}n
hvals {k}n
hgetall {k}n
hscan {k}n 0
hrandfield {k}n
hset {k}n f 1 g 2
hincrby {k}n f 1
hincrbyfloat {k}n f 1
hsetnx {k}n f 1
scard {k}n
sismember {k}n 1
smismember {k}n 1 2
smembers {k}n
srandmember {k}n
sscan {k}n 0
sinter {k}t {k}n
sinter {k}n {k}t
sinter {k}n {k}d
sunion {k}n {k}t {k}d
sdiff {k}n {k}t {k}d
sdiff {k}t {k}n
sintercard 2 {k}t {k}n
sunionstore {k}n {k}d {k}t
sdiffstore {k}t {k}n {k}d
sinterstore {k}l {k}t {k}t
sadd {k}n 1 ; smove {k}n {k}d 1
sadd {k}n 1 ; spop {k}n
spop {k}t 3
spop {k}t 2
zcard {k}n
zscore {k}n a
zmscore {k}n a b
zrank {k}n a
zrange {k}n 0 -1
zrangebyscore {k}n 0 1
zrevrange {k}n 0 -1
zcount {k}n 0 1
zlexcount {k}n - +
zscan {k}n 0
zrandmember {k}n
zunion 2 {k}n {k}z
zinter 2 {k}z {k}n
zdiff 2 {k}n {k}z
zintercard 2 {k}n {k}z
zadd {k}n incr 1 a
zadd {k}z incr 0 a
zadd {k}z xx incr 5 b
zunionstore {k}l 2 {k}z {k}n
zinterstore {k}n 2 {k}z {k}z
zdiffstore {k}n 1 {k}z
zrangestore {k}l {k}z 0 -1
zpopmax {k}z 2
zpopmin {k}z 3
zmpop 2 {k}n {k}z max count 9
zremrangebyrank {k}z 0 -1
zremrangebylex {k}z - +
zrem {k}z a ; zrem {k}z b ; zrem {k}z c
geoadd {k}n 13 38 a 15 37 b
geoadd {k}n 13 38 a ; geoadd {k}n 13 38 a
geoadd {k}n 13 38 a ; geoadd {k}n xx ch 14 38 a
geopos {k}n a
geohash {k}n a
geodist {k}n a b
geosearch {k}n fromlonlat 1 1 byradius 1 m
geoadd {k}n 13 38 a ; geosearchstore {k}d {k}n fromlonlat 13 38 byradius 10 km
geoadd {k}n 13 38 a ; geosearchstore {k}l {k}n fromlonlat 13 38 byradius 10 km
geosearchstore {k}l {k}n fromlonlat 13 38 byradius 10 km
geosearchstore {k}d {k}n fromlonlat 13 38 byradius 10 km
geoadd {k}n 13 38 a ; georadius {k}n 13 38 10 km store {k}d
geoadd {k}n 13 38 a ; georadiusbymember {k}n a 10 km store {k}l
georadius {k}n 13 38 10 km store {k}l
sort_ro {k}n
sort {k}l by nosort get {k}n* get #
sort {k}n
xlen {k}n
xrange {k}n - +
xrevrange {k}n + -
xread streams {k}n 0
xread streams {k}x {k}n 0 0
xpending {k}n g
xadd {k}n 5-0 f v
xadd {k}x maxlen 2 5-0 f v
xadd {k}x minid = 3 5-0 f v
xadd {k}x nomkstream 5-0 f v
xdel {k}x 1-0 2-0
xtrim {k}x minid 9
xgroup create {k}n g 0 mkstream
xgroup create {k}x h 0 ; xgroup setid {k}x h 2 ; xgroup destroy {k}x h
xgroup createconsumer {k}x g n ; xgroup createconsumer {k}x g n
xreadgroup group g new streams {k}x >
xreadgroup group g new streams {k}x 0
xreadgroup group g c streams {k}x >
xreadgroup group g c streams {k}n >
xclaim {k}x g new 0 1-0
xclaim {k}x g new 0 1-0 justid
xautoclaim {k}x g new 0 0
xack {k}n g 1
xclaim {k}n g c 0 1
flushall
del {k}s {k}n {k}l {k}s
unlink {k}s {k}l
expire {k}s 1000
pexpire {k}s 100000
expireat {k}s 9999999999
pexpireat {k}s 1
rename {k}s {k}n
rename {k}s {k}l
renamenx {k}s {k}n
multi ; set {k}n 1 ; publish between x ; incr {k}n ; del {k}n ; exec
multi ; set {k}n 1 ; lpush {k}n 1 ; get {k}d ; exec
multi ; set {k}n 1 ; discard
eval "redis.call('set', KEYS[1], 1) redis.call('publish', 'between', 'x') redis.call('incr', KEYS[1]) return redis.call('get', 'no{k}')" 1 {k}n
eval "redis.call('set', KEYS[1], 1) return redis.pcall('lpush', KEYS[1], 1)" 1 {k}n
eval "redis.call('set', KEYS[1], 1) error('x')" 1 {k}n
eval_ro "return redis.call('get', KEYS[1])" 1 {k}n
lpush {k}s 1
lpop {k}n 1
hset {k}n f
set {k}n v nx ; set {k}n v nx ; set {k}n v xx
restore {k}n 0 DUMPED
restore {k}l 0 DUMPED
restore {k}l 0 DUMPED replace
restore {k}n 1 DUMPED absttl
restore {k}l 1 DUMPED absttl replace
restore {k}n 100000 DUMPED
"""

# The one who waits, and what another does then.
WAITING = """
blpop {k}n {k}d 0 | rpush {k}n 1
blpop {k}n 0 | rpush {k}n 1 2 3
brpop {k}n 0 | multi ; rpush {k}n 1 ; rpush {k}n 2 ; exec
blmove {k}n {k}d left right 0 | rpush {k}n 1
blmove {k}n {k}l left right 0 | rpush {k}n 1 2
blmpop 0 1 {k}n left count 2 | rpush {k}n 1 2
bzpopmin {k}n 0 | zadd {k}n 1 a
bzpopmax {k}n 0 | zadd {k}n 1 a 2 b
bzmpop 0 1 {k}n min count 9 | zadd {k}n 1 a 2 b
blpop {k}n 0 | eval "return redis.call('rpush', KEYS[1], 1)" 1 {k}n
blpop {k}n 0 | rename {k}l {k}n
xread block 0 streams {k}x $ | xadd {k}x 9-0 f v
"""

# Keys whose time comes while nobody looks, and what is asked when it has.
EXPIRING = """
set {k}n v px 1 |
set {k}s v px 1 |
pexpire {k}l 1 |
pexpire {k}z 1 | get {k}z
set {k}n v pxat 1 |
setex {k}n 1 v |
"""

DIFFERENCES = {}


class Told:
    """One server: who subscribes to all events, and who changes keys."""

    def __init__(self, port, protocol):
        self.wires = [Wire(port, within=SECONDS_MAX) for _ in range(3)]
        self.subscriber, self.client, self.waiter = self.wires
        self.numbers = itertools.count()
        self.client.ask("CONFIG", "SET", "notify-keyspace-events", ALL)
        self.subscriber.ask("HELLO", protocol)
        for pattern in ("__key*__:*", "end", "between"):
            self.subscriber.ask("PSUBSCRIBE", pattern)
        self.client.ask("SET", "{k}dumped", "a")
        self.dumped = self.client.query("DUMP", "{k}dumped")

    def run(self, requests, waits=None, until=None):
        """What is told of these requests, after the keys are as always."""
        self._send(RESET)
        self._until_end()
        if waits:
            self.waiter.send(*waits)
            eventually(self._waits, what=str(waits))
        told = b""
        if requests:
            self._send([self._filled(words) for words in requests])
        while until and until not in told:
            told += self._shown(self.subscriber.receive())
        if waits:
            self.waiter.receive()
        return told + self._until_end()

    def _send(self, requests):
        self.client.send_raw(b"".join(request(*words) for words in requests))
        for _ in requests:
            self.client.receive()

    def _waits(self):
        return b"blocked_clients:1\r" in self.client.ask("INFO", "clients")

    def _filled(self, words):
        return [self.dumped if word == "DUMPED" else word for word in words]

    def _until_end(self):
        end = f"{next(self.numbers)}".encode()
        self.client.ask("PUBLISH", "end", end)
        told = b""
        while True:
            message = self.subscriber.receive()
            if b"\r\nend\r\n" in message and message.endswith(b"\r\n" + end + b"\r\n"):
                return told
            told += self._shown(message)

    @staticmethod
    def _shown(message):
        (_, (_, pattern, (_, channel), (_, text))) = trees(message)[0]
        return channel + b" " + text + b"\n"

    def close(self):
        """As it was before."""
        self.client.ask("CONFIG", "SET", "notify-keyspace-events", "")
        self.client.ask("DEL", "{k}dumped")
        for wire in self.wires:
            wire.close()


def cases():
    """Each with its text, its requests, what waits meanwhile, and what is told at last."""
    for line, _, requests in watched.situations(watched.SITUATIONS):
        if "until-gone" not in line:
            yield line.split(" | ")[1], requests, None, None
    for line, _, requests in watched.situations(_with_keys(FURTHER)):
        yield line.removeprefix("- | "), requests, None, None
    for line in WAITING.strip().splitlines():
        waits, others = (_requests(part) for part in line.split(" | "))
        yield line, others, waits[0], None
    for line in EXPIRING.strip().splitlines():
        first, then = line.split(" |")
        yield line, _requests(first) + (_requests(then.strip()) if then else []), None, b":expired "


def _with_keys(text):
    return "\n".join(f"- | {line}" for line in text.strip().splitlines())


def _requests(text):
    return next(watched.situations(f"- | {text}"))[2]


def sweep(ports, comparison):
    """Compares what is told, case by case, to who speaks either protocol."""
    for protocol in ("2", "3"):
        servers = [Told(port, protocol) for port in ports]
        try:
            for line, requests, waits, until in cases():
                told = [server.run(requests, waits, until) for server in servers]
                comparison.compare(
                    question("events", line, difference=DIFFERENCES.get(line)), protocol, *told
                )
        finally:
            for server in servers:
                server.close()
