-- SPDX-License-Identifier: GPL-3.0-or-later
-- A stand-in for OpenResty, as far as the Lua of nginx_subdomains uses it. Like the real one, it lets a phase wait where
-- that phase may, and ends it where the real one does. The clock stands still but for ngx.sleep() and the test. nginx.py
-- is how a test uses it. (Python must not be called back from a phase: lupa keeps the coroutine, and crashes later.)
local stub = { clock = 0, log = {}, looks = 0, look_takes = 0, results = {} }
local current, phase          -- the request that is worked at, and in which phase
local cached = 0              -- the time that ngx.now() says; nginx asks the clock once for each event
local ended = {}              -- what a phase yields that does not go on
local may_wait = { rewrite = true, content = true }
local real_open, real_rename = io.open, os.rename

local function allow(...)
  for _, allowed in ipairs { ... } do
    if phase == allowed then return end
  end
  error("API disabled in the context of " .. tostring(phase), 3)
end

-- Files: what the Lua calls /… is below the test's folder.

function io.open(path, mode)
  if path == "/proc/net/tcp" then
    stub.looks = stub.looks + 1
    stub.clock = stub.clock + stub.look_takes
  end
  return real_open(stub.folder .. path, mode)
end

function os.rename(from, to)
  return real_rename(stub.folder .. from, stub.folder .. to)
end

-- ngx.shared

local function dictionary()
  local entries, dict = {}, {}

  local function live(key)
    assert(type(key) == "string" and key ~= "", "bad key")
    local entry = entries[key]
    return entry and (entry.ends == nil or entry.ends >= stub.clock) and entry or nil
  end

  function dict:set(key, value, seconds)
    assert((seconds or 0) >= 0, 'bad "exptime" argument')
    live(key)
    entries[key] = value ~= nil and { value = value, ends = (seconds or 0) > 0 and stub.clock + seconds or nil } or nil
    return true, nil, false
  end

  function dict:add(key, value, seconds)
    if live(key) then return false, "exists", false end
    return self:set(key, value, seconds)
  end

  function dict:get(key)
    local entry = live(key)
    return entry and entry.value
  end

  function dict:delete(key)
    entries[key] = nil
  end

  function dict:ttl(key)
    local entry = live(key)
    if not entry then return nil, "not found" end
    return entry.ends and entry.ends - stub.clock or 0
  end

  function dict:get_keys(most)
    if stub.on_count == "switch" then coroutine.yield(0.001) end
    assert(stub.on_count ~= "die", "the worker dies")
    local keys = {}
    for key in pairs(entries) do
      if live(key) and (most == 0 or #keys < (most or 1024)) then keys[#keys + 1] = key end
    end
    return keys
  end

  return dict
end

-- Headers, of a request or an answer: a list of { name, value }. Names are told apart without case. In variables, and of
-- an answer, "_" means "-".

local function same(name) return (name:lower():gsub("_", "-")) end

local function values(headers, name)
  local found = {}
  for _, header in ipairs(headers) do
    if same(header[1]) == same(name) then found[#found + 1] = header[2] end
  end
  return found
end

local function replace(headers, name, value)
  for i = #headers, 1, -1 do
    if same(headers[i][1]) == same(name) then table.remove(headers, i) end
  end
  for _, each in ipairs(type(value) == "table" and value or { value }) do
    headers[#headers + 1] = { same(name), each }
  end
end

-- Of a request: a "_" is one.
local function replace_exactly(headers, name, value)
  for i = #headers, 1, -1 do
    if headers[i][1]:lower() == name:lower() then table.remove(headers, i) end
  end
  for _, each in ipairs(type(value) == "table" and value or { value }) do headers[#headers + 1] = { name, each } end
end

local function one_or_all(found) return #found > 1 and found or found[1] end

-- ngx

local writable = { label = true, visited_host = true, tunnel_scheme = true, tunnel_source = true }

local function variable(_, name)
  if current.vars[name] ~= nil then return current.vars[name] end
  local header, argument = name:match "^http_(.+)$", name:match "^arg_(.+)$"
  if header then
    local found = values(current.headers, header)
    return found[1] and table.concat(found, header == "cookie" and "; " or ", ")
  end
  if argument then
    for key, value in (current.vars.args or ""):gmatch "([^&=]+)=([^&]*)" do
      if key == argument then return value end
    end
  end
end

local function set_variable(_, name, value)
  assert(writable[name], 'variable "' .. name .. '" not found for writing; maybe it is a built-in variable')
  current.vars[name] = value
end

ngx = {
  ERR = "error", WARN = "warn",
  now = function() return cached end,
  time = function() return math.floor(cached) end,
  update_time = function() cached = stub.clock end,
  sleep = function(seconds)
    allow("rewrite", "content")
    coroutine.yield(seconds)
  end,
  log = function(level, ...)
    local words = { ... }
    for i, word in ipairs(words) do words[i] = tostring(word) end
    stub.log[#stub.log + 1] = level .. ": " .. table.concat(words)
  end,
  exit = function(status)
    allow("rewrite", "content", "header_filter")
    current.exit = status
    if phase ~= "header_filter" then coroutine.yield(ended) end -- there alone it returns, and what follows runs as well
  end,
  exec = function(location)
    allow("rewrite", "content")
    current.exec, current.ctx = location, {}
    coroutine.yield(ended)
  end,
  redirect = function(location, status)
    allow("rewrite", "content")
    current.exit = status or 302
    replace(current.answer, "location", location)
    coroutine.yield(ended)
  end,
  print = function(...)
    allow("rewrite", "content")
    current.body = current.body .. table.concat { ... }
  end,
  var = setmetatable({}, { __index = variable, __newindex = set_variable }),
  header = setmetatable({}, {
    __index = function(_, name) return one_or_all(values(current.answer, name)) end,
    __newindex = function(_, name, value) replace(current.answer, name, value) end,
  }),
  req = {
    http_version = function() return current.http_version end,
    -- Of more headers than `most` the last ones are missing; 0 is all of them.
    get_headers = function(most, raw)
      local found = {}
      for i, header in ipairs(current.headers) do
        if most ~= 0 and i > (most or 100) then break end
        local name = raw and header[1] or header[1]:lower()
        local before = found[name]
        if type(before) == "table" then before[#before + 1] = header[2]
        else found[name] = before and { before, header[2] } or header[2] end
      end
      return raw and found or setmetatable(found, { __index = function(t, name) return rawget(t, same(name)) end })
    end,
    set_header = function(name, value) replace_exactly(current.headers, name, value) end,
    clear_header = function(name) replace_exactly(current.headers, name, {}) end,
  },
}
ngx.say = function(...) ngx.print(...) ngx.print "\n" end
setmetatable(ngx, {
  __index = function(_, name)
    if name == "ctx" or name == "status" then return current[name] end
  end,
  __newindex = function(_, name, value)
    assert(name == "ctx" or name == "status", name)
    current[name] = value
  end,
})

-- What is required that is not of this project.

package.loaded["ngx.balancer"] = {
  set_timeouts = function(...)
    allow "balancer"
    current.timeouts = { ... }
    return true
  end,
  set_current_peer = function(address, port)
    allow "balancer"
    current.peer = { address, port }
    return true
  end,
}

package.loaded["resty.lrucache"] = {
  new = function()
    local held = {}
    return { get = function(_, key) return held[key] end, set = function(_, key, value) held[key] = value end }
  end,
}

-- For the test.

-- Runs phases at the same time, a list of { request, phase, action, delay }: whoever waits lets the others go on.
function stub.together(phases)
  for _, each in ipairs(phases) do each.thread, each.at = coroutine.create(each.action), stub.clock + each.delay end
  local latest = stub.clock + 60
  while #phases > 0 do
    local first = 1
    for i, each in ipairs(phases) do
      if each.at < phases[first].at then first = i end
    end
    local turn = table.remove(phases, first)
    assert(turn.at < latest, "somebody waits for more than a minute")
    stub.clock = math.max(stub.clock, turn.at)
    cached, current, phase = stub.clock, turn.request, turn.phase
    local fine, wait = coroutine.resume(turn.thread)
    if not fine then error(debug.traceback(turn.thread, wait), 0) end
    if coroutine.status(turn.thread) == "suspended" and wait ~= ended then
      assert(may_wait[phase], "this phase cannot wait")
      turn.at = stub.clock + wait
      phases[#phases + 1] = turn
    end
    current, phase = nil, nil
  end
end

-- A function that calls another one with these arguments, and keeps what it returns.
function stub.bind(action, ...)
  local arguments = { ... }
  return function()
    local result = action(unpack(arguments)) or false
    stub.results[#stub.results + 1] = result
  end
end

-- A new worker: the Lua is loaded again. What is shared stays.
function stub.worker()
  for _, name in ipairs { "ask", "listeners", "tunnels", "visit", "notice", "pages" } do package.loaded[name] = nil end
  cached = stub.clock
  local worker = {}
  for _, name in ipairs { "visit", "notice", "pages", "ask" } do worker[name] = require(name) end
  worker.listeners, worker.tunnels = require "listeners", require "tunnels"
  return worker
end

-- nginx starts: nothing is shared yet.
function stub.start()
  rawset(ngx, "shared", { granted = dictionary(), dialled = dictionary() })
end

return stub
