-- SPDX-License-Identifier: GPL-3.0-or-later
-- Who listens in this network namespace, as the kernel says it in /proc/net/tcp and tcp6. So a tunnel is known to be there without a
-- connection to it, which its owner's service would see.
local listeners = {}

local fresh = 1      -- seconds for which "it listens" is believed without a look
local pause = 0.05   -- seconds between two looks, whoever asks: a thousand dead names cost no more than twenty looks a second

local seen, looked = {}, -math.huge

-- The kernel writes an address as 32 bit words in the byte order of the machine.
local little = require("ffi").abi "le"
local function word(bytes)
  return little and (bytes:gsub("(..)(..)(..)(..)", "%4%3%2%1")) or bytes
end

-- An address (an IPv4 address, or an IPv6 address with all eight groups of four digits) as the kernel writes it.
function listeners.written(address)
  if address:find(":", 1, true) then
    return (address:gsub(":", ""):upper():gsub("........", word))
  end
  return word(string.format("%02X%02X%02X%02X", address:match "^(%d+)%.(%d+)%.(%d+)%.(%d+)$"))
end

local function look()
  local now = {}
  for _, file in ipairs { "/proc/net/tcp", "/proc/net/tcp6" } do
    local lines = assert(io.open(file))
    lines:read "*l"
    for line in lines:lines() do
      local where, state, inode = line:match "^%s*%d+: (%x+:%x+) %x+:%x+ (%x%x) %S+ %S+ %S+%s+%d+%s+%d+ (%d+)"
      if state ~= "0A" then break end -- the listeners come first
      now[where] = inode
    end
    lines:close()
  end
  ngx.update_time()
  seen, looked = now, ngx.now()
end

local function place(written, port)
  return string.format("%s:%04X", written, port)
end

-- Which socket was last seen to listen there: a number that no other one has as long as this one is there. nil for none.
function listeners.socket(written, port)
  return seen[place(written, port)]
end

-- Whether something listens on the address, as listeners.written() writes it, and port.
function listeners.has(written, port)
  local where, asked = place(written, port), ngx.now()
  if asked < looked then looked = -math.huge end -- the clock was set back
  if seen[where] and asked - looked < fresh then return true end
  -- Not seen: look again, so that a tunnel that was opened a moment ago is found at once.
  if asked - looked < pause then
    ngx.sleep(pause)
  end
  if looked <= asked then look() end
  return seen[where] ~= nil
end

return listeners
