-- SPDX-License-Identifier: GPL-3.0-or-later
-- Which tunnel a label means: the address and port that nginx dials.
local names = require "names"
local listeners = require "listeners"
local settings = require "settings"
local tunnels = {}

-- The label without "--local", and whether it had it. A name has no "--", so the two can not be mistaken.
local function plain(label)
  local name = label:match "^(.+)%-%-local$"
  return name or label, name ~= nil
end

-- A label of digits is a port, if it is the one way to write it (08080 and 73616 would be others for 8080).
local function port_of(label)
  local port = #label <= 5 and label:match "^[1-9]%d*$" and tonumber(label)
  return port and port <= 65535 and port or nil
end

-- Returns { address, port, scheme, source, localhost } or nil where nobody holds the label.
--   source     the address and port to dial from. Both are named, so that the kernel need not find a free port among those that tunnels hold.
--   localhost  what the service is told as Host when the visitor asked for "--local".
function tunnels.find(label)
  local name, mended = plain(label)
  local random = math.random
  local port = port_of(name)
  if port then
    if not listeners.has("127.0.0.1", port) then return nil end
    return {
      address = "127.0.0.1", port = port, scheme = "http",
      source = string.format("127.%d.%d.%d:%d", random(64, 127), random(0, 255), random(1, 254), random(1024, 65535)),
      localhost = mended and "localhost:" .. port or nil,
    }
  end
  if not names.valid(name) or settings.reserved[name] then return nil end
  local address = names.address(name)
  local scheme = listeners.has(address, 80) and "http" or listeners.has(address, 443) and "https"
  if not scheme then return nil end
  return {
    address = address, port = scheme == "http" and 80 or 443, scheme = scheme,
    source = string.format("[fd74:0:%x:%x:%x:%x::1]:%d", random(0, 65535), random(0, 65535), random(0, 65535), random(0, 65535), random(1024, 65535)),
    localhost = mended and "localhost" or nil,
  }
end

return tunnels
