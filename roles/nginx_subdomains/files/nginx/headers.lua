-- SPDX-License-Identifier: GPL-3.0-or-later
-- Headers of requests and answers: those that could be taken for ours go, and those that name the host name the right one.
local settings = require "settings"
local headers = {}

-- Headers that we set, believe or take away.
local ours = {}
for name in ([[
  x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip x-tunnel-plain x-tunnel-visitor sec-fetch-mode sec-fetch-site
  content-length transfer-encoding http2-settings keep-alive proxy-connection proxy-authenticate proxy-authorization
]]):gmatch "%S+" do ours[name] = true end

-- Whether a header is kept out by Caddy: of names with _ or . it lets in only those that the operator lists (tunnel_headers), each once, and then
-- not its double with a -.
local function is_unlisted(name, value)
  local listed = settings.headers[name]
  return listed == false or name:find "[_.]" and (not listed or type(value) == "table")
end

-- Many servers, and nginx's own variables, take "X_Real.IP" for X-Real-IP: only the front end may write that. Where Caddy is not on the way
-- (by_edge), what it would keep out goes as well.
function headers.drop_doubles(by_edge)
  for name, value in pairs(ngx.req.get_headers(0, true)) do -- all of them, as they are written
    local lower = name:lower()
    if name:find "[^%w-]" and ours[lower:gsub("%W", "-")] or by_edge and is_unlisted(lower, value) then ngx.req.clear_header(name) end
  end
end

-- What is meant for the next hop alone (RFC 9110, 7.6.1), also by a word of the visitor's. TE, and what frames a request, nginx minds itself.
local of_a_hop = { "Alt-Svc", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Trailer" }
local framing = { ["content-length"] = true, ["transfer-encoding"] = true, host = true, te = true, upgrade = true, connection = true }
local function drop_of_a_hop()
  local clear, upgrades = ngx.req.clear_header, false
  for _, name in ipairs(of_a_hop) do clear(name) end
  for name in (ngx.var.http_connection or ""):lower():gmatch "[^%s,]+" do
    upgrades = upgrades or name == "upgrade"
    if not framing[name] then clear(name) end
  end
  if not upgrades then clear "Upgrade" end
end

-- The host that a request names, as it is written. Where an HTTP/1.1 visitor writes it in two places, that of the request line counts.
local function written_host()
  local host, written = ngx.var.host, ngx.var.http_host or ""
  return written:lower():gsub(":%d*$", ""):gsub("%.$", "") == host and written or host
end

-- What Caddy says of a request that comes by it: who visits, and how. Whatever the visitor wrote there is gone.
function headers.introduce(visitor, hidden)
  drop_of_a_hop()
  local request = ngx.req
  for _, name in ipairs { "Forwarded", "Via", "X-Tunnel-Plain" } do request.clear_header(name) end
  request.set_header("X-Forwarded-For", visitor)
  request.set_header("X-Real-IP", visitor)
  request.set_header("X-Tunnel-Visitor", hidden and "" or visitor)
  request.set_header("X-Forwarded-Proto", "https")
  request.set_header("X-Forwarded-Host", written_host())
end

-- And what it does to an answer: what the host is made of is nobody's business. nginx.conf hides what of a service's is meant for one hop.
function headers.see_off()
  local header = ngx.header
  header["Server"] = nil
  if ngx.status ~= 101 then header["Upgrade"] = nil end
  if settings.hsts > 0 then header["Strict-Transport-Security"] = "max-age=" .. settings.hsts end
  header["Alt-Svc"] = settings.alt_svc
end

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

local function mend_request(asked, names, mend, new)
  for _, name in ipairs(names) do
    local values = mended(asked[name], mend, new)
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
function headers.pretend_localhost(tunnel)
  local own, request = "https://" .. ngx.var.visited_host, ngx.req
  local there = tunnel.scheme .. "://" .. tunnel.localhost
  local asked = request.get_headers(0) -- all of them, not the first hundred; nginx bounds what they take
  local visitors = {}
  for _, authority in ipairs { spellings(tunnel.localhost) } do visitors[tunnel.scheme .. "://" .. authority] = true end
  for _, name in ipairs { "Origin", "Sec-WebSocket-Origin" } do -- the second is that of an older WebSocket, which servers still read
    local origin = asked[name]
    if origin == own then
      request.set_header(name, there)
    elseif visitors[origin or ""] then
      request.set_header(name, "null")
    end
  end
  local referer = asked.referer
  if type(referer) == "string" then
    if referer:sub(1, #own + 1) == own .. "/" then
      request.set_header("Referer", there .. referer:sub(#own + 1))
    elseif visitors[referer:match "^(.-://[^/]*)/"] then
      request.clear_header("Referer")
    end
  end
  mend_request(asked, asked_urls, mend_url, { [own] = there })
  mend_request(asked, asked_words, mend_words, { [own] = there })
  for _, name in ipairs { "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server", "Alt-Used" } do
    request.clear_header(name)
  end
  ngx.var.visited_host = tunnel.localhost
end

-- What a service that believes to be localhost says of itself is true of the visited host.
function headers.localhost_to_visited(localhost, visited)
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
function headers.http_to_https()
  local header = ngx.header
  if not (header.location or header.link or header.refresh or header.content_location) then return end
  local host, visited = ngx.var.host, ngx.var.visited_host
  local https = "https://" .. visited
  local new = { ["http://" .. host] = https, ["http://" .. host .. ":80"] = https, ["http://" .. visited] = https }
  mend_answer({ "Location", "Content-Location" }, mend_url, new)
  mend_answer({ "Link" }, mend_words, new)
  mend_answer({ "Refresh" }, mend_refresh, new)
end

return headers
