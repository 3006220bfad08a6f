-- SPDX-License-Identifier: GPL-3.0-or-later
-- The page that a browser is shown once before a name that needs no account: what comes next is not the host's.
-- Programs, and what a page fetches by itself, pass. Whether it was shown is known by a cookie that no neighbour's page can set ("__Host-"),
-- no tunnel (guard), and no link from elsewhere (the browser says from where somebody goes on).
local settings = require "settings"
local notice = {}

local path, cookie = "/.proxme-tunnel/go-on", "__Host-proxme-tunnel"
local remembered = 30 * 86400

local function needs_no_account(name)
  local prefix = settings.guest_prefix
  return name:match "^%d+$" or (prefix ~= "" and name:sub(1, #prefix) == prefix)
end

-- Whether the browser has the cookie, by this very name: nginx's own $cookie_ is not that strict.
local function was_shown()
  for pair in (ngx.var.http_cookie or ""):gmatch "[^;]+" do
    if pair:match "^%s*(.-)%s*$" == cookie .. "=1" then return true end
  end
end

-- Where the page leads on to.
function notice.link()
  return path .. "?" .. (ngx.var.request_uri or "/") -- none if it was too long
end

-- rewrite: shows the page where it has to be, and takes note of who goes on. A browser keeps such a cookie over https alone. Old ones don't say
-- what a request is for, and are believed.
function notice.give(name)
  local var = ngx.var
  if not settings.guest_notice or not needs_no_account(name) or var.http_x_forwarded_proto ~= "https" then return end
  if var.uri == path and (var.http_sec_fetch_site or "same-origin") == "same-origin" and (var.args or ""):sub(1, 1) == "/" then
    ngx.header.set_cookie = string.format("%s=1; Path=/; Secure; HttpOnly; SameSite=None; Max-Age=%d", cookie, remembered)
    return ngx.redirect("https://" .. var.visited_host .. var.args, 303)
  end
  local is_page = (var.http_accept or ""):find("text/html", 1, true) and (var.http_sec_fetch_mode or "navigate") == "navigate"
  if is_page and not was_shown() then return ngx.exec "@notice" end
end

-- header_filter: what a tunnel answers does not say that the page was shown.
function notice.guard()
  local cookies = ngx.header.set_cookie
  if not settings.guest_notice or not cookies or not ngx.ctx.tunnel then return end
  local kept = {}
  for _, value in ipairs(type(cookies) == "table" and cookies or { cookies }) do
    if not value:lower():find(cookie:lower(), 1, true) then kept[#kept + 1] = value end
  end
  ngx.header.set_cookie = kept
end

return notice
