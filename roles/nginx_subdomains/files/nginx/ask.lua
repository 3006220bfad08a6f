-- SPDX-License-Identifier: GPL-3.0-or-later
-- The door that the front end asks before it orders a certificate: yes for a live tunnel, and for so many new names a day and a week.
-- What was granted stands in a file too, a line "time name" each, so that a restart forgets nothing.
local tunnels = require "tunnels"
local settings = require "settings"
local ask = {}

local ledger = "/var/lib/tunnel/certificates"
local day, week = 86400, 7 * 86400
local remembered = 90 * 86400 -- for so long a name's certificate may be renewed without being new
local granted = ngx.shared.granted

-- master, at start and at reload: reads the ledger and leaves out what is too old.
function ask.load()
  local file = io.open(ledger)
  if not file then return end
  local kept = {}
  for line in file:lines() do
    local time, name = line:match "^(%d+) (%S+)$"
    local left = time and time + remembered - ngx.time()
    if left and left > 0 then
      granted:set(name, tonumber(time), left)
      kept[#kept + 1] = line .. "\n"
    end
  end
  file:close()
  local new = assert(io.open(ledger .. ".new", "w"))
  assert(new:write(table.concat(kept)))
  assert(new:close())
  assert(os.rename(ledger .. ".new", ledger))
end

local function granted_within(seconds)
  local count, since = 0, ngx.time() - seconds
  for _, name in ipairs(granted:get_keys(0)) do
    if (granted:get(name) or 0) > since then count = count + 1 end
  end
  return count
end

local function record(name)
  local file, problem = io.open(ledger, "a")
  if file then
    problem = select(2, file:write(ngx.time(), " ", name, "\n"))
    file:close()
  end
  if problem then ngx.log(ngx.ERR, "can not remember that ", name, " may have a certificate: ", problem) end
end

-- Whether a name may have its first certificate. The budget is that of our own domain; a custom domain is another registered one, and only an
-- operator adds it.
local function within_budget(domain, label)
  if settings.domains[domain] or settings.always[label] or granted:get(label) then return true end
  -- add() is atomic, so no two workers grant the last certificate. No yield between the two, or the lock would wait for itself.
  while not granted:add("\0lock", 0, 5) do ngx.sleep(0.01) end
  local fits = granted_within(day) < settings.certificates_per_day and granted_within(week) < settings.certificates_per_week
  if fits then
    granted:set(label, ngx.time(), remembered)
    record(label)
  end
  granted:delete "\0lock"
  return fits
end

-- content: answers ?domain=… with 200, or 403 and a reason.
function ask.answer()
  local domain = ngx.var.arg_domain or ""
  local label = tunnels.label_of(domain)
  local refused
  if not settings.own_certificates and not settings.domains[domain] then
    refused = "one certificate is for all of our own names"
  elseif "." .. domain ~= settings.below and not (label and tunnels.find(label)) then
    refused = "not the name of a live tunnel"
  elseif label and not within_budget(domain, label) then
    refused = "the certificates of this day or week are used up"
    ngx.log(ngx.WARN, "no certificate for ", domain, ": ", refused, " (", settings.certificates_per_day, ", ", settings.certificates_per_week, ")")
  end
  ngx.status = refused and 403 or 200
  ngx.say(refused or "yes")
end

return ask
