-- SPDX-License-Identifier: GPL-3.0-or-later
-- The phases of a visitor's request.
local balancer = require "ngx.balancer"
local tunnels = require "tunnels"
local settings = require "settings"
local notice = require "notice"
local visit = {}

local day = 86400

-- Headers by which a request, and an answer, names the host: docs/how-it-works.md lists them, and says why each. In the first of each pair a URL
-- is all of the value, or its beginning; in the second URLs are among other words.
local asked_urls, asked_words = { "Destination", "Content-Location", "Ping-From", "Ping-To" }, { "If", "Link" }
local answered_urls = { "Location", "Content-Location", "SourceMap", "X-SourceMap", "Service-Worker-Allowed" }
local answered_words = {
  "Link", "WWW-Authenticate", "Access-Control-Allow-Origin", "Timing-Allow-Origin", "Content-Security-Policy",
  "Content-Security-Policy-Report-Only", "Permissions-Policy", "Reporting-Endpoints", "Report-To", "Speculation-Rules",
}

-- What follows is done to a header's value. `new` is a table: in the place of a scheme and an authority ("http://localhost:8000") comes what
-- stands there for it. An authority is never a part of one: "http://localhost:8000@example.com" and "http://localhost:80001" are others.

local function mend_url(value, new)
  return (value:gsub("^%a+://[^/?#]*", new))
end

-- A URL begins a word. What stands later in a word, such as the query of another URL, is somebody else's.
local function mend_words(value, new)
  return (value:gsub("%f[^%z%s\"'<(,;]%a+://[^/?#%s\"'<>(),;]*", new))
end

-- "5; url=http://…"
local function mend_refresh(value, new)
  return (value:gsub("^([%d.]*%s*[;,]?%s*[^:/?#]-)(%a+://[^/?#\"']*)", function(before, url)
    return new[url] and before .. new[url]
  end))
end

-- A cookie without a Domain is the visited host's.
local function mend_cookie(value)
  return (value:gsub(";%s*(%a+)%s*=%s*%.?([%w.]+)%s*%f[;%z]", function(key, domain)
    domain = domain:lower()
    return key:lower() == "domain" and (domain == "localhost" or domain == "127.0.0.1") and "" or nil
  end))
end

-- Mends all values of a header, which are a text or several. Nothing is written where nothing was to mend.
local function mended(values, mend, new)
  if not values then return nil end
  if type(values) == "string" then
    local value = mend(values, new)
    return value ~= values and value or nil
  end
  local changed
  for i, value in ipairs(values) do
    values[i] = mend(value, new)
    changed = changed or values[i] ~= value
  end
  return changed and values or nil
end

local function mend_request(headers, names, mend, new)
  for _, name in ipairs(names) do
    local values = mended(headers[name], mend, new)
    if values then ngx.req.set_header(name, values) end
  end
end

local function mend_answer(names, mend, new)
  local header = ngx.header
  for _, name in ipairs(names) do
    local values = mended(header[name], mend, new)
    if values then header[name] = values end
  end
end

-- The ways in which a service that was told "localhost:8000" may write that.
local function spellings(localhost)
  local port = localhost:sub(#"localhost" + 1)
  return localhost, "127.0.0.1" .. port, "[::1]" .. port
end

-- For a server that answers to localhost alone: Host is localhost, and Origin and Referer are too, but only where they are this very host's,
-- so that the server's own protection against foreign pages stays whole. A page of the visitor's own localhost is as foreign as any other, but
-- names itself like the server: it is told apart.
local function pretend_localhost(tunnel)
  local own, request = "https://" .. ngx.var.visited_host, ngx.req
  local there = tunnel.scheme .. "://" .. tunnel.localhost
  local headers = request.get_headers(0) -- all of them, not the first hundred; nginx bounds what they take
  local visitors = {}
  for _, authority in ipairs { spellings(tunnel.localhost) } do visitors[tunnel.scheme .. "://" .. authority] = true end
  for _, name in ipairs { "Origin", "Sec-WebSocket-Origin" } do -- the second is that of an older WebSocket, which servers still read
    local origin = headers[name]
    if origin == own then
      request.set_header(name, there)
    elseif visitors[origin or ""] then
      request.set_header(name, "null")
    end
  end
  local referer = headers.referer
  if type(referer) == "string" then
    if referer:sub(1, #own + 1) == own .. "/" then
      request.set_header("Referer", there .. referer:sub(#own + 1))
    elseif visitors[referer:match "^(.-://[^/]*)/"] then
      request.clear_header("Referer")
    end
  end
  mend_request(headers, asked_urls, mend_url, { [own] = there })
  mend_request(headers, asked_words, mend_words, { [own] = there })
  for _, name in ipairs { "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server", "Alt-Used" } do
    request.clear_header(name)
  end
  ngx.var.visited_host = tunnel.localhost
end

-- rewrite: finds the tunnel, or ends the request.
function visit.route()
  local label = tunnels.label_of(ngx.var.host)
  if not label then return ngx.exit(404) end
  ngx.var.label = tunnels.plain(label) -- limits count by it, whatever port of localhost a visitor writes behind it
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
  else
    ngx.ctx.https_alone = ngx.var.http_x_forwarded_proto == "https" and not settings.plain[label]
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

-- What a service that believes to be localhost says of itself is true of the visited host.
local function localhost_to_visited(localhost, visited)
  local new, bare = {}, {}
  for _, authority in ipairs { spellings(localhost) } do
    for _, scheme in ipairs { "http", "https" } do new[scheme .. "://" .. authority] = "https://" .. visited end
    for _, scheme in ipairs { "ws", "wss" } do new[scheme .. "://" .. authority] = "wss://" .. visited end
    bare[authority] = visited
  end
  mend_answer(answered_urls, mend_url, new)
  mend_answer(answered_words, mend_words, new)
  mend_answer({ "Refresh" }, mend_refresh, new)
  mend_answer({ "Set-Cookie" }, mend_cookie)
  -- There alone a host may stand without a scheme.
  mend_answer({ "Content-Security-Policy", "Content-Security-Policy-Report-Only" }, function(value)
    return (value:gsub("%f[^%z%s,;][%w.:%[%]]+%f[%z%s,;]", bare))
  end)
  ngx.header["Alt-Svc"] = nil -- a port of its own machine
end

-- What leads to http of the visited host leads to https of it, as plain http would do by our redirect: from a page that came over https a
-- browser follows nothing to plain http, not even for the sake of a redirect.
local function http_to_https()
  local header = ngx.header
  if not (header.location or header.link or header.refresh or header.content_location) then return end
  local host, visited = ngx.var.host, ngx.var.visited_host
  local https = "https://" .. visited
  local new = { ["http://" .. host] = https, ["http://" .. host .. ":80"] = https, ["http://" .. visited] = https }
  mend_answer({ "Location", "Content-Location" }, mend_url, new)
  mend_answer({ "Link" }, mend_words, new)
  mend_answer({ "Refresh" }, mend_refresh, new)
end

-- header_filter: what the service says of the host that was visited.
function visit.mend_answer()
  local tunnel = ngx.ctx.tunnel
  if not tunnel then return end
  if tunnel.localhost then
    localhost_to_visited(tunnel.localhost, ngx.ctx.visited)
  elseif ngx.ctx.https_alone then
    http_to_https()
  end
end

return visit
