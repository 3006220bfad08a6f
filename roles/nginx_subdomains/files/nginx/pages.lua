-- SPDX-License-Identifier: GPL-3.0-or-later
-- Our own pages, where no tunnel answers.
local names = require "names"
local tunnels = require "tunnels"
local settings = require "settings"
local notice = require "notice"
local texts = require "texts"
local pages = {}

-- The forward that opens a tunnel under this label, or, where nobody may take it, one that would be granted.
local function forward_for(label)
  local guest = settings.guest_prefix
  if tunnels.port_of(label) then return label .. ":localhost:80" end
  if guest == "" then return "8080:localhost:80" end
  local free = names.valid(label) and label:sub(1, #guest) == guest
  return (free and label or guest .. "x") .. ":80:localhost:3000"
end

-- content: the page, with the visited label and the forward that its owner would type. A label is letters, digits and hyphens.
function pages.show(name, status)
  local label = tunnels.plain(ngx.var.label) -- "" where the host has none
  local values = { host = ngx.var.host, forward = forward_for(label), link = notice.link() }
  local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
  ngx.status = status
  ngx.header.content_type = "text/html; charset=utf-8"
  ngx.header.cache_control = "no-store"
  ngx.print((texts[name]:gsub("{(%l+)}", function(key)
    return values[key] and (values[key]:gsub('[&<>"]', entities))
  end)))
end

-- content: dialling the tunnel failed. Either its service does not answer, or its listener vanished within the last second.
function pages.failed()
  if tunnels.find(ngx.var.label) then return pages.show("down", 502) end
  return pages.show("nobody", 404)
end

return pages
