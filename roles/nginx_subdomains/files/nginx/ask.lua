-- SPDX-License-Identifier: GPL-3.0-or-later
-- The door that the front end asks before it orders a certificate: yes for a live tunnel, and for so many new names a day and a week.
-- What was granted stands in a file too, so that a restart forgets nothing: a line "granted name asked authority" each, both times in seconds.
local tunnels = require "tunnels"
local settings = require "settings"
local ask = {}

local ledger = "/var/lib/tunnel/certificates"
local day, week = 86400, 7 * 86400
local ports_of_name = 3
local remembered = 90 * 86400 -- for so long after the last question a name's certificate may be renewed without being new
local granted = ngx.shared.granted
local to_ours = " " .. settings.authority

-- Writes a text to a new file (mode "w") or to the end of one ("a"). Returns why it could not, or nothing.
local function write(path, mode, text)
  local file, problem = io.open(path, mode)
  if not file then return problem end
  problem = select(2, file:write(text))
  local closed, unwritten = file:close()
  return problem or not closed and unwritten
end

-- Puts a new text in the ledger's place, or leaves it as it is and returns why.
local function replace_ledger(text)
  return write(ledger .. ".new", "w", text) or select(2, os.rename(ledger .. ".new", ledger))
end

-- master, at start and at reload: reads the ledger, and leaves out what is too old and what was said twice. What another authority was asked
-- for does not count for this one, but stays. A line of a former version says less: then the last two are the first one and this authority.
function ask.load()
  local file = io.open(ledger)
  if not file then return end
  local kept, order = {}, {}
  for line in file:lines() do
    local time, name, rest = line:match "^(%d+) (%S+)(.*)$"
    if time then
      local asked, authority = rest:match "^ (%d+) (%S+)$"
      asked, authority = asked or time, authority or settings.authority
      local left = asked + remembered - ngx.time()
      if left > 0 then
        local key = name .. " " .. authority -- as in `granted`
        if not kept[key] then order[#order + 1] = key end
        kept[key] = table.concat({ time, name, asked, authority }, " ") .. "\n"
        granted:set(key, tonumber(time), left)
      end
    end
  end
  file:close()
  for i, key in ipairs(order) do order[i] = kept[key] end
  -- On a full disk it stays longer than need be, and all goes on.
  local problem = replace_ledger(table.concat(order))
  if problem then ngx.log(ngx.ERR, "cannot shorten the list of certificates: ", problem) end
end

-- How many labels had their first one within so many seconds, how many of these with "--local-PORT", and how many of this name's with it.
local function granted_within(seconds, asked_name)
  local all, with_port, of_name, since = 0, 0, 0, ngx.time() - seconds
  for _, key in ipairs(granted:get_keys(0)) do
    if key:sub(-#to_ours) == to_ours and (granted:get(key) or 0) > since then
      local name, _, port = tunnels.plain(key:sub(1, -#to_ours - 1))
      all = all + 1
      if port then with_port = with_port + 1 end
      if port and name == asked_name then of_name = of_name + 1 end
    end
  end
  return all, with_port, of_name
end

-- Whether the budget has one more for a label. A visitor may write 65535 ports behind "--local-", and it costs him nothing. So all labels of this
-- kind together have half of the budget, and a name has `ports_of_name` of them within a week.
local function has_left(label)
  local name, _, port = tunnels.plain(label)
  for seconds, budget in pairs { [day] = settings.certificates_per_day, [week] = settings.certificates_per_week } do
    local all, with_port, of_name = granted_within(seconds, name)
    if all >= budget then return false end
    if port and (with_port >= budget / 2 or of_name >= ports_of_name) then return false end
  end
  return true
end

-- Remembers from now on that a name had its first certificate granted at a time.
local function record(name, time)
  granted:set(name .. to_ours, time, remembered)
  local problem = write(ledger, "a", table.concat({ time, name, ngx.time(), settings.authority }, " ") .. "\n")
  if problem then ngx.log(ngx.ERR, "cannot remember that ", name, " may have a certificate: ", problem) end
end

-- Whether a name had its first certificate. One that is renewed is remembered on; a line a week is enough for that.
local function known(name)
  local time = granted:get(name .. to_ours)
  if time and (granted:ttl(name .. to_ours) or 0) < remembered - week then record(name, time) end
  return time ~= nil
end

-- Whether a name may have its first certificate. The budget is that of our own domain; a custom domain is another registered one, and only an
-- operator adds it.
local function within_budget(domain, label)
  if settings.domains[domain] or settings.always[label] then return true end
  -- add() is atomic, so no two workers grant the last certificate. No yield between the two, or the lock would wait for itself.
  while not granted:add("\0lock", 0, 5) do ngx.sleep(0.01) end
  local fits = known(label) -- asked in here: another worker may just have granted it to this very name
  if not fits and has_left(label) then
    record(label, ngx.time())
    fits = true
  end
  granted:delete "\0lock"
  return fits
end

-- content: answers ?domain=… with 200, or 403 and a reason.
function ask.answer()
  local domain = ngx.var.arg_domain or ""
  local label = tunnels.label_of(domain)
  local refused
  if settings.passthrough[domain] then
    refused = "the tunnel has a certificate of its own"
  elseif not settings.own_certificates and not settings.domains[domain] then
    refused = "one certificate is for all of our own names"
  elseif "." .. domain ~= settings.below and not (label and tunnels.find(label)) then
    refused = "not the name of a live tunnel"
  elseif label and #label > 63 then
    refused = "no host name has a label of more than 63"
  elseif label and not within_budget(domain, label) then
    refused = "the certificates of this day or week are used up"
    ngx.log(ngx.WARN, "no certificate for ", domain, ": ", refused, " (", settings.certificates_per_day, ", ", settings.certificates_per_week, ")")
  end
  ngx.status = refused and 403 or 200
  ngx.say(refused or "yes")
end

return ask
