"""`WATCH`: which changes by others, and by oneself, make `EXEC` answer nothing, and which do not."""

from sweeps.cases import Case, Reason, Step, Sweep
from sweeps.drawn import RESET

S, L, H, T, Z, N, D = ("{k}" + kind for kind in "slhtznd")

# What happens between `WATCH` of all keys named and `EXEC`: the keys, then requests.
SITUATIONS = """
{k}s | get {k}s
{k}s | set {k}s 10
{k}s | set {k}s 11
{k}s | set {k}s 11 nx
{k}s | set {k}s 11 xx
{k}s | set {k}s 11 get
{k}n | set {k}n 1 xx
{k}n | set {k}n 1 nx
{k}n | setnx {k}n 1
{k}s | setnx {k}s 1
{k}s | getset {k}s 10
{k}s | getdel {k}s
{k}n | getdel {k}n
{k}s | getex {k}s
{k}s | getex {k}s persist
{k}s | getex {k}s ex 1000
{k}s | set {k}s 10 keepttl
{k}s | setex {k}s 1000 10
{k}s | append {k}s ""
{k}s | append {k}s x
{k}n | append {k}n ""
{k}s | setrange {k}s 0 ""
{k}s | setrange {k}s 0 1
{k}s | setrange {k}s 1 0
{k}n | setrange {k}n 0 ""
{k}s | incr {k}s
{k}s | incrby {k}s 0
{k}s | decrby {k}s 0
{k}s | incrbyfloat {k}s 0
{k}s | incrby {k}s x
{k}l | incr {k}l
{k}s | setbit {k}s 7 1
{k}s | setbit {k}s 7 0
{k}s | setbit {k}s 0 0
{k}s | bitfield {k}s get u8 0
{k}s | bitfield {k}s set u8 0 49
{k}s | bitfield {k}s incrby u8 0 0
{k}s | bitfield {k}s overflow fail incrby u2 0 3
{k}s | bitop and {k}s {k}s {k}s
{k}n | bitop and {k}n {k}d {k}d
{k}s | bitop not {k}s {k}d
{k}s | mset {k}s 10
{k}s | mset {k}d 1 {k}s 10
{k}s | msetnx {k}s 10 {k}d 1
{k}n | msetnx {k}n 10 {k}d 1
{k}s | del {k}s
{k}n | del {k}n
{k}s | unlink {k}s
{k}n | unlink {k}n
{k}s | del {k}d {k}n
{k}s | expire {k}s 1000
{k}n | expire {k}n 1000
{k}s | expire {k}s 0
{k}s | expire {k}s -1
{k}s | expire {k}s 1000 xx
{k}s | expire {k}s 1000 nx
{k}s | expire {k}s 1000 gt
{k}s | expire {k}s 1000 lt
{k}s | expireat {k}s 1
{k}s | persist {k}s
{k}n | persist {k}n
{k}s | touch {k}s
{k}s | exists {k}s
{k}s | type {k}s
{k}s | object encoding {k}s
{k}s | dump {k}s
{k}s | ttl {k}s
{k}s | rename {k}s {k}d
{k}d | rename {k}s {k}d
{k}s {k}d | rename {k}l {k}n
{k}s | rename {k}s {k}s
{k}n | rename {k}n {k}s
{k}s | rename {k}n {k}s
{k}s | renamenx {k}s {k}l
{k}l | renamenx {k}s {k}l
{k}d | renamenx {k}s {k}d
{k}s | renamenx {k}s {k}s
{k}s | copy {k}s {k}d
{k}d | copy {k}s {k}d
{k}l | copy {k}s {k}l
{k}l | copy {k}s {k}l replace
{k}d | copy {k}n {k}d
{k}l | copy {k}n {k}l replace
{k}s | flushall
{k}n | flushall
{k}s | flushdb
{k}n | flushdb
{k}s {k}n | flushall async
{k}l | lpush {k}l x
{k}n | lpush {k}n x
{k}n | lpushx {k}n x
{k}l | lpushx {k}l x
{k}l | lpop {k}l
{k}l | lpop {k}l 0
{k}l | lpop {k}l 10
{k}n | lpop {k}n
{k}l | rpop {k}l 2
{k}l | lset {k}l 0 1
{k}l | lset {k}l 0 x
{k}l | lset {k}l 9 x
{k}l | ltrim {k}l 0 -1
{k}l | ltrim {k}l 1 1
{k}l | ltrim {k}l 5 9
{k}n | ltrim {k}n 0 -1
{k}l | lrem {k}l 0 x
{k}l | lrem {k}l 0 1
{k}l | linsert {k}l before 1 x
{k}l | linsert {k}l before x x
{k}l | rpoplpush {k}l {k}l
{k}l | rpoplpush {k}n {k}l
{k}d | rpoplpush {k}l {k}d
{k}l | lmove {k}l {k}l left left
{k}l | lmove {k}l {k}d left right
{k}d | lmove {k}n {k}d left right
{k}l | lmpop 1 {k}l left
{k}n | lmpop 1 {k}n left
{k}l | lmpop 2 {k}n {k}l left
{k}l | lrange {k}l 0 -1
{k}h | hset {k}h f 10
{k}h | hset {k}h f 11
{k}h | hset {k}h x 1
{k}h | hsetnx {k}h f 1
{k}h | hsetnx {k}h x 1
{k}h | hmset {k}h f 10
{k}h | hdel {k}h x
{k}h | hdel {k}h f
{k}h | hdel {k}h f g
{k}n | hdel {k}n f
{k}h | hincrby {k}h f 0
{k}h | hincrby {k}h g 1
{k}h | hincrbyfloat {k}h f 0
{k}h | hgetall {k}h
{k}h | hset {k}s f 1
{k}t | sadd {k}t 1
{k}t | sadd {k}t 4
{k}n | sadd {k}n 4
{k}t | srem {k}t 4
{k}t | srem {k}t 1
{k}t | srem {k}t 1 2 3
{k}t | spop {k}t 0
{k}t | spop {k}t
{k}t | spop {k}t 9
{k}n | spop {k}n
{k}t | smove {k}t {k}t 1
{k}t | smove {k}t {k}d 1
{k}d | smove {k}t {k}d 1
{k}d | smove {k}t {k}d 9
{k}t | sinterstore {k}t {k}t {k}t
{k}d | sinterstore {k}d {k}t {k}n
{k}t | sinterstore {k}t {k}t {k}n
{k}t | sdiffstore {k}t {k}t {k}t
{k}d | sdiffstore {k}d {k}t {k}t
{k}t | sunionstore {k}t {k}t
{k}d | sunionstore {k}d {k}t
{k}d | sunionstore {k}d {k}n
{k}t | sunionstore {k}d {k}t
{k}t | sinterstore {k}t {k}l
{k}t | srandmember {k}t
{k}z | zadd {k}z 1 a
{k}z | zadd {k}z 2 a
{k}z | zadd {k}z nx 2 a
{k}z | zadd {k}z xx 2 x
{k}z | zadd {k}z gt 0 a
{k}z | zadd {k}z lt 5 a
{k}z | zadd {k}z ch 1 a
{k}n | zadd {k}n xx 1 a
{k}n | zadd {k}n 1 a
{k}z | zincrby {k}z 0 a
{k}z | zincrby {k}z 1 a
{k}z | zrem {k}z x
{k}z | zrem {k}z a
{k}z | zrem {k}z a b c
{k}z | zpopmin {k}z 0
{k}z | zpopmin {k}z
{k}z | zpopmax {k}z 9
{k}n | zpopmin {k}n
{k}z | zmpop 1 {k}z min
{k}n | zmpop 1 {k}n min
{k}z | zremrangebyrank {k}z 5 9
{k}z | zremrangebyrank {k}z 0 0
{k}z | zremrangebyscore {k}z 9 10
{k}z | zremrangebyscore {k}z 1 1
{k}z | zremrangebylex {k}z [x [y
{k}z | zrangestore {k}z {k}z 0 -1
{k}z | zrangestore {k}z {k}n 0 -1
{k}d | zrangestore {k}d {k}n 0 -1
{k}d | zrangestore {k}d {k}z 0 -1
{k}d | zrangestore {k}d {k}z 9 10
{k}z | zunionstore {k}z 1 {k}z
{k}d | zunionstore {k}d 1 {k}n
{k}z | zunionstore {k}z 1 {k}n
{k}z | zinterstore {k}z 2 {k}z {k}n
{k}d | zdiffstore {k}d 2 {k}z {k}z
{k}z | zdiffstore {k}z 2 {k}z {k}z
{k}z | zrange {k}z 0 -1
{k}l | sort {k}l
{k}l | sort {k}l store {k}l
{k}d | sort {k}l store {k}d
{k}d | sort {k}n store {k}d
{k}l | sort {k}n store {k}l
{k}l | sort {k}l store {k}d
{k}s | publish {k}s x
{k}s | eval "return redis.call('get', KEYS[1])" 1 {k}s
{k}s | eval "return redis.call('set', KEYS[1], 10)" 1 {k}s
{k}s | eval "redis.call('set', KEYS[1], 1) return redis.call('set', KEYS[1], 10)" 1 {k}s
{k}s | eval "redis.call('set', KEYS[1], 1) error('x')" 1 {k}s
{k}s | eval "return redis.pcall('lpush', KEYS[1], 1)" 1 {k}s
{k}n | eval "redis.call('set', KEYS[1], 1) redis.call('del', KEYS[1])" 1 {k}n
{k}n | eval "return redis.call('del', KEYS[1])" 1 {k}n
{k}n | set {k}n 1 ; del {k}n
{k}s | del {k}s ; set {k}s 10
{k}s | multi ; set {k}s 11 ; exec
{k}s | multi ; set {k}s 11 ; discard
{k}s | multi ; get {k}s ; exec
{k}s | multi ; set {k}s 11 ; nothing ; exec
{k}n | set {k}n 1 px 1 ; until-gone {k}n
{k}s | pexpire {k}s 1 ; until-gone {k}s
{k}s | expire {k}s 1000 ; get {k}s
{k}s {k}n | set {k}n 1
{k}s {k}l | lpush {k}l 1
{k}s {k}s | set {k}s 11
{k}s | restore {k}s 0 x
{k}s | set {k}s 10 ex 1000 ; persist {k}s
{k}s | setex {k}s 0 1
{k}s | lpush {k}s 1
{k}x | xadd {k}x 9-0 f v
{k}x | xadd {k}x 1-0 f v
{k}x | xadd {k}x nomkstream maxlen 1 9-0 f v
{k}n | xadd {k}n nomkstream 9-0 f v
{k}n | xadd {k}n 9-0 f v
{k}x | xdel {k}x 1-0
{k}x | xdel {k}x 9-0
{k}x | xtrim {k}x maxlen 3
{k}x | xtrim {k}x maxlen 2
{k}x | xsetid {k}x 3-0
{k}x | xsetid {k}x 5-0
{k}x | xgroup create {k}x h 0
{k}x | xgroup create {k}x h $ mkstream
{k}n | xgroup create {k}n h $ mkstream
{k}n | xgroup create {k}n h $
{k}x | xgroup setid {k}x g 0
{k}x | xgroup setid {k}x g 9-0 entriesread 7
{k}x | xgroup destroy {k}x g
{k}x | xgroup destroy {k}x nope
{k}x | xgroup createconsumer {k}x g e
{k}x | xgroup createconsumer {k}x g c
{k}x | xgroup delconsumer {k}x g c
{k}x | xgroup delconsumer {k}x g e
{k}x | xack {k}x g 1-0
{k}x | xack {k}x g 9-0
{k}x | xclaim {k}x g d 0 1-0
{k}x | xclaim {k}x g d 0 1-0 lastid 7-0
{k}x | xautoclaim {k}x g d 0 0
{k}x | xreadgroup group g c streams {k}x >
{k}x | xreadgroup group g c noack streams {k}x >
{k}x | xreadgroup group g c streams {k}x 0
{k}x | xreadgroup group g new streams {k}x 9-0
{k}x | xread streams {k}x 0
{k}s | script flush
{k}s | config set timeout 0
"""

# What the connection that watches does itself, between `WATCH` and `MULTI`.
OWN = """
{k}s | set {k}s 11
{k}s | set {k}s 10
{k}s | get {k}s
{k}s | expire {k}s 1000
{k}n | del {k}n
{k}s | unwatch ; set {k}s 11
{k}s | multi ; discard ; set {k}s 11
{k}s | multi ; exec ; set {k}s 11
{k}s | set {k}s 11 ; unwatch ; watch {k}s
{k}s | set {k}s 11 ; watch {k}s
{k}s | set {k}s 11 ; watch {k}l
{k}s | reset ; set {k}s 11
{k}s | eval "return redis.call('set', KEYS[1], 11)" 1 {k}s
{k}s | flushall
{k}s | multi ; watch {k}l ; exec
{k}s | multi ; unwatch ; set {k}s 12 ; exec
{k}s | set {k}s 11 ; multi ; unwatch ; exec
{k}s | set {k}s 11 ; multi ; discard
"""


def situations(text):
    """Lines with their keys and their requests."""
    for line in text.strip().splitlines():
        keys, requests = line.split(" | ")
        yield line, keys.split(), [_words(request) for request in requests.split(" ; ")]


def _words(request):
    # Quotes hold scripts, which hold no further double quotes.
    parts = request.split('"')
    words = [part if odd % 2 else part.split() for odd, part in enumerate(parts)]
    return tuple(word for part in words for word in (part if isinstance(part, list) else [part]))


def _step(words, connection):
    if words[0] == "until-gone":
        return Step(words=("EXISTS", words[1]), connection=connection, until=b":0\r\n")
    return Step(words=words, connection=connection, compare="unordered")


def _exec(connection):
    watcher = [("MULTI",), ("PING",), ("EXEC",), ("DISCARD",), ("UNWATCH",)]
    return [Step(words=words, connection=connection) for words in watcher]


def cases():
    """Each situation, with the change made by another and by the one that watches."""
    reset = [Step(words=words, connection="other", compare="nothing") for words in RESET]
    for by in ("other", "watcher"):
        texts = SITUATIONS if by == "other" else SITUATIONS + OWN.strip()
        for line, keys, requests in situations(texts):
            steps = [*reset, Step(words=("WATCH", *keys), connection="watcher")]
            steps += [_step(words, by) for words in requests]
            yield Case(f"{by}: {line}", steps + _exec("watcher"))


REASONS = [
    Reason("spop|srandmember", "drawn at random", compare="shape", by_chance=True),
]


def sweep(_commands, _known):
    """The sweep; what is asked does not depend on the commands."""
    return Sweep("watched keys", list(cases()), REASONS)
