-- SPDX-License-Identifier: GPL-3.0-or-later
-- Our own pages, where no tunnel answers.
local names = require "names"
local tunnels = require "tunnels"
local settings = require "settings"
local notice = require "notice"
local visit = require "visit"
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
  local page = texts[name]:gsub("{(%l+)}", function(key)
    return values[key] and (values[key]:gsub('[&<>"]', entities))
  end)
  ngx.status = status
  -- A service that answers without a status line makes nginx believe that its visitor speaks HTTP/0.9, in which no header is sent. Nor does
  -- nginx close his connection after the page.
  if ngx.req.http_version() < 1 and ngx.var.server_protocol:find "^HTTP/1" then
    ngx.print(table.concat({
      "HTTP/1.1 " .. status .. " Bad Gateway", "Content-Type: text/html; charset=utf-8", "Content-Length: " .. #page, "Cache-Control: no-store",
      "Connection: close", "\r\n",
    }, "\r\n"))
  end
  ngx.header.content_type = "text/html; charset=utf-8"
  ngx.header.cache_control = "no-store"
  ngx.print(page)
end

-- content: the tunnel gave no answer that can be passed on. Either its listener vanished within the last second, or its service said nothing at
-- all, or something else than an answer.
function pages.failed()
  local tunnel = tunnels.find(ngx.var.label)
  if not tunnel then return pages.show("nobody", 404) end
  -- It was asked by ourselves, who know more of it, and broke off because of what it said.
  if ngx.var.tunnel_scheme == "" then return pages.show("unclear", 502) end
  local known = tunnels.speaks(tunnel)
  tunnels.speaks(tunnel, "unknown")
  -- Another service may be there by now.
  if known == "h2" and visit.repeatable() then return ngx.exec "@once" end
  local said = (ngx.var.upstream_bytes_received or ""):find "[1-9]" -- a number for each try
  pages.show(said and "unclear" or "down", 502)
end

return pages
