-- SPDX-License-Identifier: GPL-3.0-or-later
-- Which tunnel a label means: the address and port that nginx dials.
local names = require "names"
local listeners = require "listeners"
local settings = require "settings"
local lrucache = require "resty.lrucache"
local tunnels = {}
local dialled = ngx.shared.dialled
-- What labels mean, as it takes longer to find out than all else that a request needs of this file.
local meanings = assert(lrucache.new(4096))

-- A label of digits is a port, if it is the one way to write it (08080 and 73616 would be others for 8080).
function tunnels.port_of(label)
  local port = #label <= 5 and label:match "^[1-9]%d*$" and tonumber(label)
  return port and port <= 65535 and port or nil
end

-- The label without "--local" or "--local-PORT", whether it had one of them, and that port. A name has no "--", so nothing can be mistaken.
function tunnels.plain(label)
  local name, digits = label:match "^(.+)%-%-local%-(%d+)$"
  local port = name and tunnels.port_of(digits)
  if port then return name, true, port end
  name = label:match "^(.+)%-%-local$"
  return name or label, name ~= nil
end
local plain = tunnels.plain

-- The port of a name that is dialled: 80, or else 443 with TLS. Whoever is dialled stays so until the tunnel ends; otherwise another client
-- could take a name's visitors by taking its other port.
local function held_port(name, written)
  for _, port in ipairs { dialled:get(name) or 80, 80, 443 } do
    if listeners.has(written, port) then
      dialled:set(name, port)
      return port
    end
  end
  dialled:delete(name)
end

-- The label of a host: what stands before our domain, or what a custom domain shows. nil for any other host.
function tunnels.label_of(host)
  local below = settings.below
  if host:sub(-#below) == below then
    local label = host:sub(1, -#below - 1)
    return #label <= 70 and label:match "^[a-z0-9-]+$"
  end
  return settings.domains[host] or settings.passthrough[host]
end

-- Whether the operator has blocked a label.
function tunnels.is_blocked(label)
  return settings.blocked[(plain(label))] or false
end

-- What a label means, whether or not somebody holds it: { name, port (of a port label), address, written, localhost }, or false for nothing.
local function meaning_of(label)
  local meaning = meanings:get(label)
  if meaning ~= nil then return meaning end
  local name, mended, said = plain(label)
  local port = tunnels.port_of(name)
  if port or (names.valid(name) and not settings.reserved[name]) then
    local address, localhost = port and "127.0.0.1" or names.address(name), nil
    if mended then localhost = (said or port) and "localhost:" .. (said or port) or "localhost" end
    meaning = { name = name, port = port, address = address, written = listeners.written(address), localhost = localhost }
  end
  meanings:set(label, meaning or false)
  return meaning
end

-- What the service of a tunnel speaks, and of no other one that had its name before: "h1"; "h2", which is HTTP/2 alone; "perhaps h2"; or nil, as
-- long as nobody knows. With a second argument, that it does, which is believed for so many seconds; "unknown" forgets it.
local believed = { h1 = 60, h2 = 3600, ["perhaps h2"] = 2 }
function tunnels.speaks(tunnel, found)
  local key = "speaks " .. tunnel.name .. " " .. tunnel.port .. " " .. tunnel.socket
  if not found then return dialled:get(key) end
  if found == "unknown" then return dialled:delete(key) end
  dialled:set(key, found, believed[found])
end

-- Returns { name, address, port, socket, scheme, source, localhost } or nil where nobody holds the label, or, if one is wanted, that port of it.
--   source     the address and port to dial from. Both are named, so that the kernel need not find a free port among those that tunnels hold.
--   localhost  what the service is told as Host when the visitor asked for "--local" or "--local-PORT". Nothing is dialled because of it.
function tunnels.find(label, wanted)
  local meaning, random = meaning_of(label), math.random
  if not meaning or settings.blocked[meaning.name] then return nil end
  local name, address, port = meaning.name, meaning.address, meaning.port
  if port then
    if not listeners.has(meaning.written, port) then return nil end
    return {
      name = name, address = address, port = port, socket = listeners.socket(meaning.written, port), scheme = "http",
      source = string.format("127.%d.%d.%d:%d", random(64, 127), random(0, 255), random(1, 254), random(1024, 65535)),
      localhost = meaning.localhost,
    }
  end
  if not wanted then
    port = held_port(name, meaning.written)
  elseif listeners.has(meaning.written, wanted) then
    port = wanted
  end
  if not port then return nil end
  return {
    name = name, address = address, port = port, socket = listeners.socket(meaning.written, port),
    scheme = port == 80 and "http" or "https",
    source = string.format("[fd74:0:%x:%x:%x:%x::1]:%d", random(0, 65535), random(0, 65535), random(0, 65535), random(0, 65535), random(1024, 65535)),
    localhost = meaning.localhost,
  }
end

return tunnels
