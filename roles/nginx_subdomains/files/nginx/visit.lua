-- SPDX-License-Identifier: GPL-3.0-or-later
-- The phases of a visitor's request.
local balancer = require "ngx.balancer"
local tunnels = require "tunnels"
local settings = require "settings"
local headers = require "headers"
local notice = require "notice"
local visit = {}

local day = 86400

-- Methods that are nothing more when they are asked twice (RFC 9110, 9.2.2).
local idempotent = { GET = true, HEAD = true, OPTIONS = true, TRACE = true, PUT = true, DELETE = true }

-- Whether a request may be made again, and can be.
function visit.repeatable()
  local var = ngx.var
  return idempotent[var.request_method] and not var.http_transfer_encoding and (var.http_content_length or "0") == "0"
end

-- gRPC is HTTP/2 all the way. (grpc-web is not.)
local function is_grpc()
  local kind = ngx.var.server_protocol == "HTTP/2.0" and ngx.var.http_content_type or ""
  return kind:find("^application/grpc") and not kind:find("^application/grpc%-web")
end

-- The location that leads a request to its tunnel: by HTTP/2, by a kept connection, or by one of its own. A service that turns out to speak
-- HTTP/2 alone has to be asked once more. Caddy does that; what comes straight from the edge makes a turn by ourselves until more is known.
local function way_to(tunnel, by_edge)
  local spoken = tunnels.speaks(tunnel)
  if is_grpc() or spoken and spoken ~= "h1" then return "@h2" end
  if by_edge and not spoken then return "@ourselves" end
  return visit.repeatable() and "/" or "@once"
end

-- Ends a request that comes straight from the edge, as Caddy does: in a line of text.
local function turn_away(status, text)
  ngx.status = status
  ngx.header.content_type = "text/plain; charset=utf-8"
  ngx.print(text)
  return ngx.exit(status)
end

-- Whether visitors of a host are Caddy's: of our domain itself, and of the operator's own sites.
local function is_caddys(host, label)
  return "." .. host == settings.below or settings.caddys[label] or settings.caddys["*"]
end

-- The tunnel that a challenge of a certificate authority (RFC 8555, 8.3) is for, where the tunneller has to get the certificate: its port 80.
local function challenged(label)
  local challenge = ngx.var.uri:find("/.well-known/acme-challenge/", 1, true) == 1
  return challenge and settings.passthrough[ngx.var.host] and tunnels.find(label, 80)
end

-- rewrite: finds the tunnel, or ends the request. `here` is the location that it is at: each way to the tunnel has its own.
function visit.route(here)
  local visitor, label = ngx.var.proxy_protocol_addr, tunnels.label_of(ngx.var.host)
  if here == "/" then -- each request begins there
    headers.drop_doubles(visitor)
    if visitor then -- straight from the edge
      if ngx.var.blocked_visitor == "1" then return turn_away(403, settings.blocked_text) end
      -- A browser takes one connection for all names of a certificate, also for those that Caddy serves. It comes again by another.
      if is_caddys(ngx.var.host, label or "") then return turn_away(421, "Ask for this host over a connection of its own.") end
      headers.introduce(visitor, ngx.var.server_addr:find "hidden")
    end
  end
  if not label then return ngx.exit(404) end
  -- By https nobody comes here but who had a connection for another name, or of before. He comes again, and gets to the tunneller's own TLS.
  local passed = settings.passthrough[ngx.var.host]
  if passed and (visitor or ngx.var.http_x_forwarded_proto ~= "http") then return ngx.exit(421) end
  ngx.var.label = tunnels.plain(label) -- limits count by it, whatever port of localhost a visitor writes behind it
  if tunnels.is_blocked(label) then return ngx.exit(410) end
  local challenge = challenged(label)
  local tunnel = challenge or tunnels.find(label)
  if not tunnel then return ngx.exit(404) end
  -- The front end says "plain" while it has no certificate yet.
  local plain = not passed and ngx.var.http_x_tunnel_plain == "yes" or challenge or settings.plain[label]
  if ngx.var.http_x_forwarded_proto == "http" and not plain and settings.redirect_to_https then
    return ngx.redirect("https://" .. ngx.var.visited_host .. ngx.var.request_uri, 308)
  end
  local way = here == "/" and way_to(tunnel, visitor) or here
  if way ~= here then return ngx.exec(way) end
  notice.give(tunnel.name)
  ngx.ctx.tunnel, ngx.ctx.by_h2 = tunnel, here == "@h2"
  ngx.var.tunnel_scheme, ngx.var.tunnel_source = tunnel.scheme, tunnel.source
  if tunnel.localhost then
    ngx.ctx.visited = ngx.var.visited_host
    headers.pretend_localhost(tunnel)
  else
    ngx.ctx.https_alone = ngx.var.http_x_forwarded_proto == "https" and not settings.plain[label]
  end
end

-- balancer: dials the tunnel.
function visit.dial()
  local tunnel = ngx.ctx.tunnel
  local stream = ngx.var.websocket ~= "" or is_grpc() or (ngx.var.http_accept or ""):find("text/event-stream", 1, true)
  local wait = stream and day or settings.answer_timeout
  assert(balancer.set_timeouts(5, wait, wait))
  assert(balancer.set_current_peer(tunnel.address:find(":", 1, true) and "[" .. tunnel.address .. "]" or tunnel.address, tunnel.port))
end

-- header_filter: refuses an answer that nginx passes on as it is, and whose end the front end would see elsewhere than nginx does. What the
-- tunnel sends after that end would be taken for the answer to the next request on the connection, and that may be for another tunnel.
-- These are interim statuses (but the 101 that a WebSocket asked for), and what begins with no status line: nginx takes it for HTTP/0.9.
function visit.refuse_unclear()
  local status, tunnel = ngx.status, ngx.ctx.tunnel
  if not tunnel then return end -- ours
  if ngx.req.http_version() < 1 then
    tunnels.speaks(tunnel, "perhaps h2") -- then it greets before it is asked. The front end asks once more
    -- nginx would pass a page on to it without a header, too. Whom nobody stands before gets one all the same.
    return ngx.exit(ngx.var.proxy_protocol_addr and 502 or 444)
  end
  if status < 200 and not (status == 101 and ngx.var.websocket ~= "") then
    return ngx.exit(502)
  end
  local spoken = tunnels.speaks(tunnel)
  if not ngx.ctx.by_h2 then
    if not spoken then tunnels.speaks(tunnel, "h1") end
  elseif spoken and spoken ~= "h1" then
    tunnels.speaks(tunnel, "h2")
  end
end

-- header_filter: what Caddy does to answers, where it is not on the way.
function visit.see_off()
  if ngx.var.proxy_protocol_addr then headers.see_off() end
end

-- header_filter: what the service says of the host that was visited.
function visit.mend_answer()
  local tunnel = ngx.ctx.tunnel
  if not tunnel then return end
  if tunnel.localhost then
    headers.localhost_to_visited(tunnel.localhost, ngx.ctx.visited)
  elseif ngx.ctx.https_alone then
    headers.http_to_https()
  end
end

return visit
