-- SPDX-License-Identifier: GPL-3.0-or-later
-- The phases of a visitor's request.
local balancer = require "ngx.balancer"
local tunnels = require "tunnels"
local settings = require "settings"
local notice = require "notice"
local visit = {}

local day = 86400

-- For a server that answers to localhost alone: Host is localhost, and Origin and Referer are too, but only where they are this very host's,
-- so that the server's own protection against foreign pages stays whole. A page of the visitor's own localhost is as foreign as any other, but
-- names itself like the server: it is told apart.
local function pretend_localhost(tunnel)
  local own, request = "https://" .. ngx.var.visited_host, ngx.req
  local there = tunnel.scheme .. "://" .. tunnel.localhost
  local headers = request.get_headers(0) -- all of them, not the first hundred; nginx bounds what they take
  if headers.origin == own then
    request.set_header("Origin", there)
  elseif headers.origin == there then
    request.set_header("Origin", "null")
  end
  local referer = headers.referer
  if type(referer) == "string" then
    if referer:sub(1, #own + 1) == own .. "/" then
      request.set_header("Referer", there .. referer:sub(#own + 1))
    elseif referer:sub(1, #there + 1) == there .. "/" then
      request.clear_header("Referer")
    end
  end
  for _, name in ipairs { "X-Forwarded-Host", "X-Forwarded-Proto" } do request.clear_header(name) end
  ngx.var.visited_host = tunnel.localhost
end

-- rewrite: finds the tunnel, or ends the request.
function visit.route()
  local label = tunnels.label_of(ngx.var.host)
  if not label then return ngx.exit(404) end
  ngx.var.label = label
  if tunnels.is_blocked(label) then return ngx.exit(410) end
  local tunnel = tunnels.find(label)
  if not tunnel then return ngx.exit(404) end
  -- The front end says "plain" while it has no certificate yet.
  if ngx.var.http_x_forwarded_proto == "http" and ngx.var.http_x_tunnel_plain ~= "yes" and settings.redirect_to_https and not settings.plain[label] then
    return ngx.redirect("https://" .. ngx.var.visited_host .. ngx.var.request_uri, 308)
  end
  notice.give(tunnel.name)
  ngx.ctx.tunnel = tunnel
  ngx.var.tunnel_scheme, ngx.var.tunnel_source = tunnel.scheme, tunnel.source
  if tunnel.localhost then
    ngx.ctx.visited = ngx.var.visited_host
    pretend_localhost(tunnel)
  end
end

-- balancer: dials the tunnel.
function visit.dial()
  local tunnel = ngx.ctx.tunnel
  local stream = ngx.var.websocket ~= "" or (ngx.var.http_accept or ""):find("text/event-stream", 1, true)
  local wait = stream and day or settings.answer_timeout
  assert(balancer.set_timeouts(5, wait, wait))
  assert(balancer.set_current_peer(tunnel.address:find(":", 1, true) and "[" .. tunnel.address .. "]" or tunnel.address, tunnel.port))
end

-- header_filter: refuses an answer that nginx passes on as it is, and whose end the front end would see elsewhere than nginx does. What the
-- tunnel sends after that end would be taken for the answer to the next request on the connection, and that may be for another tunnel.
-- These are interim statuses (but the 101 that a WebSocket asked for), and what begins with no status line: nginx takes it for HTTP/0.9.
function visit.refuse_unclear()
  local status = ngx.status
  if ngx.req.http_version() < 1 then
    return ngx.exit(444) -- no page: nginx would pass it without a header, too
  end
  if status < 200 and not (status == 101 and ngx.var.websocket ~= "") then
    return ngx.exit(502)
  end
end

-- header_filter: what a service that believes to be localhost says of itself is true of the visited host.
function visit.localhost_to_visited()
  local visited = ngx.ctx.visited
  if not visited then return end
  local header, localhost = ngx.header, ngx.ctx.tunnel.localhost
  local location = header.location
  if type(location) == "string" then
    local authority, path = location:match "^https?://([^/?#]*)(.*)$"
    if authority == localhost or authority == localhost:gsub("^localhost", "127.0.0.1") then
      header.location = "https://" .. visited .. path
    end
  end
  local cookies = header.set_cookie
  if cookies then
    if type(cookies) == "string" then cookies = { cookies } end
    for i, cookie in ipairs(cookies) do
      cookies[i] = cookie:gsub(";%s*(%a+)%s*=%s*%.?(%a+)%s*%f[;%z]", function(key, value)
        return key:lower() == "domain" and value:lower() == "localhost" and "" or nil
      end)
    end
    header.set_cookie = cookies
  end
end

return visit
