-- The globals of a script, as Redis 7 has them, on a stock Lua 5.1.
--
-- What a script can reach is listed here and nowhere else. Three things cannot be
-- done from Rust and are the reason for this file:
--
-- * what calls a function of the script (pcall, xpcall, resume, sort, gsub): an
--   error that passes through Rust loses its value;
-- * what turns a caught error into the value Redis would have raised, and raises
--   again what may not be caught (`settle`);
-- * tables nobody can change: stock Lua has none, so a library is an empty table
--   that reads through to the real one (`freeze`).
--
-- INVARIANT: no real table of a library, and not the real table of globals,
-- is ever given to a script: a change would be seen by all later ones.

local stock, rust = ...

local error, next, pcall, rawget, rawset, setmetatable, type, xpcall =
  stock.error, stock.next, stock.pcall, stock.rawget, stock.rawset, stock.setmetatable, stock.type, stock.xpcall
local getmetatable, select, tostring = stock.getmetatable, stock.select, stock.tostring
local concat, insert, remove, sub =
  stock.table.concat, stock.table.insert, stock.table.remove, stock.string.sub
local resume = stock.coroutine.resume
local settle = rust.settle
local bad_table, bad_argument, fail, charge = rust.bad_table, rust.bad_argument, rust.fail, rust.charge
local tonumber = stock.tonumber

-- The real table behind each frozen one.
local frozen = setmetatable({}, { __mode = "k" })

local function modify()
  fail("Attempt to modify a readonly table")
end

-- The same from a function that Redis has in C: there the text has no position.
local function modify_raw()
  error("Attempt to modify a readonly table", 0)
end

local function freeze(real)
  local shown = setmetatable({}, { __index = real, __newindex = modify, __metatable = false })
  frozen[shown] = real
  return shown
end

local function pick(from, names)
  local picked = {}
  for name in stock.string.gmatch(names, "[%w_]+") do
    picked[name] = from[name]
  end
  return picked
end

-- Errors -------------------------------------------------------------------

-- What pcall gives of {err = text} is the text, as it was before Redis 7.
local function caught(ok, ...)
  if ok then
    return true, ...
  end
  local value = settle((...))
  if type(value) == "table" then
    local text = value.err
    if type(text) == "string" or type(text) == "number" then
      value = text
    end
  end
  return false, value
end

local function resumed(ok, ...)
  if ok then
    return true, ...
  end
  return false, settle((...))
end

local globals = pick(stock, [[
  assert error gcinfo getmetatable ipairs rawequal select setmetatable tonumber tostring type
]])
globals._VERSION = stock._VERSION
globals.loadstring = rust.loadstring
globals.collectgarbage = rust.collectgarbage

function globals.pcall(...)
  return caught(pcall(...))
end

function globals.xpcall(run, handler)
  return resumed(xpcall(run, function(value)
    -- A handler runs where the error was raised, inside the hook if the hook
    -- raised it, and there no hook could end it: so once the run is stopped,
    -- `settle` raises and the handler is not called.
    return handler(settle(value))
  end))
end

function globals.load(reader, name)
  if type(reader) ~= "function" then
    bad_argument(1, "function expected, got " .. type(reader))
  end
  local pieces, bytes = {}, 0
  repeat
    local ok, piece = pcall(reader)
    if not ok then
      -- There it has passed the handler of the script itself.
      return nil, globals.__redis__err__handler(settle(piece))
    elseif piece == nil then
      piece = ""
    elseif type(piece) ~= "string" and type(piece) ~= "number" then
      return nil, "reader function must return a string"
    end
    pieces[#pieces + 1] = piece
    bytes = bytes + #tostring(piece)
    -- A text that is too long is refused whole, however long it would go on.
  until piece == "" or bytes > rust.script_bytes
  return rust.loadstring(concat(pieces), name or "=(load)")
end

-- Older scripts and those of libraries pass it to xpcall.
function globals.__redis__err__handler(value)
  if type(value) ~= "table" then
    value = { err = "ERR " .. tostring(value) }
  end
  return value
end

-- Stock Lua's gives thousands of values without a handle in Rust for each.
local unpack, give = rust.check_unpack, stock.unpack
function globals.unpack(...)
  unpack(...)
  return give(...)
end

-- Tables -------------------------------------------------------------------

function globals.next(table, key)
  if type(table) ~= "table" then
    bad_table(1, table)
  end
  return next(frozen[table] or table, key)
end

function globals.pairs(table)
  if type(table) ~= "table" then
    bad_table(1, table)
  end
  local real = frozen[table]
  if real then
    local copy = {}
    for key, value in next, real do
      copy[key] = value
    end
    table = copy
  end
  return next, table, nil
end

function globals.rawget(table, key)
  if type(table) ~= "table" then
    bad_table(1, table)
  end
  return rawget(frozen[table] or table, key)
end

function globals.rawset(table, key, value)
  if type(table) ~= "table" then
    bad_table(1, table)
  elseif frozen[table] then
    modify_raw()
  end
  return rawset(table, key, value)
end

local tables = pick(stock.table, "getn setn")

-- Places so far before the start that stock Lua would fill millions of entries.
local SHIFT_MAX = 1000
-- Entries that stock Lua moves or joins without being counted.
local FREE_MAX = 1000
-- What moving one entry is counted as: 16 ns.
local MOVE_WORK = 16
-- Bytes from which a text is worth counting.
local LONG = 4096

local function check_number(index, value)
  if value ~= nil and not tonumber(value) then
    bad_argument(index, "number expected, got " .. type(value))
  end
end

-- Stock Lua joins any number of values without a hook: here a thousand at a time.
local function join(list, separator, from, to)
  while to - from >= FREE_MAX and from > -2 ^ 31 and to < 2 ^ 31 do
    local pieces, count = {}, 0
    for first = from, to, FREE_MAX do
      local last = first + FREE_MAX - 1
      count = count + 1
      pieces[count] = concat(list, separator, first, last < to and last or to)
      charge(#pieces[count] + FREE_MAX * MOVE_WORK)
    end
    list, from, to = pieces, 1, count
  end
  return concat(list, separator, from, to)
end

function tables.concat(list, separator, from, to)
  if separator ~= nil and type(separator) ~= "string" and type(separator) ~= "number" then
    bad_argument(2, "string expected, got " .. type(separator))
  elseif type(list) ~= "table" then
    bad_table(1, list)
  end
  check_number(3, from)
  check_number(4, to)
  from, to = tonumber(from) or 1, tonumber(to) or #list
  -- Caught and raised again: its place in the script is not this file's.
  local ok, joined = pcall(join, list, separator or "", from, to)
  if not ok then
    joined = settle(joined)
    fail(joined)
  end
  if #joined > LONG then
    charge(#joined)
  end
  return joined
end

function tables.foreach(list, run)
  if type(list) ~= "table" then
    bad_table(1, list)
  elseif type(run) ~= "function" then
    bad_argument(2, "function expected, got " .. type(run))
  end
  for key, value in next, list do
    local result = run(key, value)
    if result ~= nil then
      return result
    end
  end
end

function tables.foreachi(list, run)
  if type(list) ~= "table" then
    bad_table(1, list)
  elseif type(run) ~= "function" then
    bad_argument(2, "function expected, got " .. type(run))
  end
  for index = 1, #list do
    local result = run(index, rawget(list, index))
    if result ~= nil then
      return result
    end
  end
end

function tables.maxn(list)
  if type(list) ~= "table" then
    bad_table(1, list)
  end
  local most = 0
  for key in next, list do
    if type(key) == "number" and key > most then
      most = key
    end
  end
  return most
end

-- What stock Lua is about to move in one go.
local function charge_moves(list, position)
  local moved = #list - position
  if moved > FREE_MAX then
    charge(moved * MOVE_WORK)
  end
end

function tables.remove(list, position)
  if type(list) ~= "table" then
    bad_table(1, list)
  elseif position ~= nil then
    check_number(2, position)
    charge_moves(list, tonumber(position))
  end
  return remove(list, position)
end

function tables.insert(table, ...)
  local count = select("#", ...)
  if type(table) ~= "table" then
    bad_table(1, table)
  elseif frozen[table] then
    modify_raw()
  elseif count == 2 then
    local position = (...)
    if type(position) == "number" and not (position > -SHIFT_MAX and position < 2 ^ 31) then
      bad_argument(2, "position out of bounds")
    end
    charge_moves(table, tonumber(position) or 0)
  elseif count ~= 1 then
    fail("wrong number of arguments to 'insert'")
  end
  return insert(table, ...)
end

-- Stock Lua's quicksort, in Lua: comparing a million long strings takes
-- minutes in C, where no hook is called. Same choices, so the same order.
local function sort_range(list, low, high, less)
  while low < high do
    if less(list[high], list[low]) then
      list[low], list[high] = list[high], list[low]
    end
    if high - low == 1 then
      return
    end
    local middle = low + (high - low - (high - low) % 2) / 2
    if less(list[middle], list[low]) then
      list[middle], list[low] = list[low], list[middle]
    elseif less(list[high], list[middle]) then
      list[middle], list[high] = list[high], list[middle]
    end
    if high - low == 2 then
      return
    end
    local pivot = list[middle]
    list[middle], list[high - 1] = list[high - 1], pivot
    local left, right = low, high - 1
    while true do
      left = left + 1
      while less(list[left], pivot) do
        if left > high then
          fail("invalid order function for sorting")
        end
        left = left + 1
      end
      right = right - 1
      while less(pivot, list[right]) do
        if right < low then
          fail("invalid order function for sorting")
        end
        right = right - 1
      end
      if right < left then
        break
      end
      list[left], list[right] = list[right], list[left]
    end
    list[high - 1], list[left] = list[left], list[high - 1]
    -- The smaller side first, so that the stack stays small.
    if left - low < high - left then
      sort_range(list, low, left - 1, less)
      low = left + 1
    else
      sort_range(list, left + 1, high, less)
      high = left - 1
    end
  end
end

local function ascending(one, other)
  return one < other
end

function tables.sort(list, less)
  if type(list) ~= "table" then
    bad_table(1, list)
  elseif less ~= nil and type(less) ~= "function" then
    bad_argument(2, "function expected, got " .. type(less))
  end
  sort_range(list, 1, #list, less or ascending)
end

-- Strings ------------------------------------------------------------------

local strings = pick(stock.string, "byte char format len sub")

-- Long texts are Rust's: stock Lua takes ten times as long, without a hook.
local function mapped(name)
  local stock_run, run = stock.string[name], rust[name]
  strings[name] = function(text)
    if type(text) == "string" then
      return (#text > LONG and run or stock_run)(text)
    elseif type(text) == "number" then
      return stock_run(text)
    end
    bad_argument(1, "string expected, got " .. (text == nil and "no value" or type(text)))
  end
end
mapped("lower")
mapped("reverse")
mapped("upper")

for name, run in next, rust.strings do
  strings[name] = run
end
local next_match, gsub, check_two = rust.next_match, rust.gsub, rust.check_two

function strings.gmatch(subject, pattern)
  subject, pattern = check_two(subject, pattern)
  local position = 0
  local function advance(from, to, ...)
    if from == nil then
      return nil
    end
    -- After an empty match, one character further: else it would be found again.
    position = to > from and to or to + 1
    return ...
  end
  return function()
    return advance(next_match(subject, pattern, position, false))
  end
end
strings.gfind = strings.gmatch

local function looked_up(lookup, from, to, ...)
  if from then
    return from, to, lookup(...)
  end
end

local function gsub_call(subject, pattern, lookup, most, one)
  subject, pattern = check_two(subject, pattern)
  local pieces, count, position = {}, 0, 0
  while count < most do
    local from, to, value = looked_up(lookup, next_match(subject, pattern, position, true, one))
    if not from then
      break
    end
    count = count + 1
    pieces[#pieces + 1] = sub(subject, position + 1, from)
    if not value then
      pieces[#pieces + 1] = sub(subject, from + 1, to)
    elseif type(value) == "string" or type(value) == "number" then
      pieces[#pieces + 1] = value
    else
      fail("invalid replacement value (a " .. type(value) .. ")")
    end
    position = to
    if to == from then
      pieces[#pieces + 1] = sub(subject, to + 1, to + 1)
      position = to + 1
    end
  end
  pieces[#pieces + 1] = sub(subject, position + 1)
  return join(pieces, "", 1, #pieces), count
end

function strings.gsub(subject, pattern, replacement, most)
  local lookup
  if type(replacement) == "function" then
    lookup = replacement
  elseif type(replacement) == "table" and getmetatable(replacement) ~= nil then
    lookup = function(key)
      return replacement[key]
    end
  else
    return gsub(subject, pattern, replacement, most)
  end
  -- No tail call: an error in there names the line that called this function.
  local result, count = gsub_call(subject, pattern, lookup, stock.tonumber(most) or stock.math.huge, lookup ~= replacement)
  return result, count
end

-- Nobody may change what all strings have in common, nor reach stock functions.
local of_strings = getmetatable("")
of_strings.__index = strings
of_strings.__metatable = false

-- The rest -----------------------------------------------------------------

local math = {}
for name, value in next, stock.math do
  math[name] = value
end
math.random, math.randomseed = rust.random, rust.randomseed

local coroutine = pick(stock.coroutine, "create running status wrap yield")
function coroutine.resume(routine, ...)
  if type(routine) ~= "thread" then
    bad_argument(1, "coroutine expected")
  end
  return resumed(resume(routine, ...))
end

globals.string, globals.table, globals.math = freeze(strings), freeze(tables), freeze(math)
globals.coroutine = freeze(coroutine)
for name, library in next, rust.libraries do
  globals[name] = freeze(library)
end

-- Valkey's name of it.
globals.server = globals.redis
globals.__server__err__handler = globals.__redis__err__handler

local shown = freeze(globals)
globals._G = shown
setmetatable(globals, { __index = rust.missing })

-- Runs a script to its end; `trace` notes where an uncaught error was raised.
local trace = rust.trace
local function drive(script)
  return xpcall(script, trace)
end

-- Libraries of functions -----------------------------------------------------
--
-- A library's text finds only what registers functions, as in Redis, and is run once. Its functions find what scripts
-- do, but for KEYS and ARGV, which they are given, and what only scripts may call.

local at_load = pick(rust.libraries.redis, [[
  log LOG_DEBUG LOG_VERBOSE LOG_NOTICE LOG_WARNING REDIS_VERSION REDIS_VERSION_NUM
]])
at_load.register_function = rust.register_function
setmetatable(at_load, { __index = rust.missing })
local registering = { redis = freeze(at_load) }
registering.server = registering.redis
setmetatable(registering, { __index = rust.missing })

local at_call = {}
for name, value in next, rust.libraries.redis do
  at_call[name] = value
end
at_call.breakpoint, at_call.debug, at_call.replicate_commands = nil, nil, nil
local calling = {}
for name, value in next, globals do
  calling[name] = value
end
calling.__redis__err__handler, calling.__server__err__handler = nil, nil
calling.redis = freeze(at_call)
calling.server = calling.redis
setmetatable(calling, { __index = rust.missing })

-- What they see: which of the two is behind it is Rust's to say, for nothing that runs here may be sure to go on.
local behind = { __index = calling, __newindex = modify, __metatable = false }
local library_shown = setmetatable({}, behind)
frozen[library_shown] = calling
calling._G = library_shown

local function drive_function(run, keys, arguments)
  return xpcall(function()
    return run(keys, arguments)
  end, trace)
end

return shown, globals, drive, {
  shown = library_shown,
  behind = behind,
  registering = registering,
  calling = calling,
  drive = drive_function,
}
