-- SPDX-License-Identifier: GPL-3.0-or-later
-- The page that a browser is shown once before a name that needs no account: what comes next is not the host's.
-- Programs, and what a page fetches by itself, pass. Whether it was shown is known by a cookie that neither a neighbour's page can set
-- ("__Host-") nor a link from elsewhere (the browser says from where somebody goes on).
local settings = require "settings"
local notice = {}

local path, cookie = "/.proxme-tunnel/go-on", "__Host-proxme-tunnel"
local remembered = 30 * 86400

local function needs_no_account(name)
  local prefix = settings.guest_prefix
  return name:match "^%d+$" or (prefix ~= "" and name:sub(1, #prefix) == prefix)
end

-- Where the page leads on to.
function notice.link()
  return path .. "?" .. ngx.var.request_uri
end

-- rewrite: shows the page where it has to be, and takes note of who goes on. A browser keeps such a cookie over https alone. Old ones don't say
-- what a request is for, and are believed.
function notice.give(name)
  local var = ngx.var
  if not settings.guest_notice or not needs_no_account(name) or var.http_x_forwarded_proto ~= "https" then return end
  if var.uri == path and (var.http_sec_fetch_site or "same-origin") == "same-origin" and (var.args or ""):sub(1, 1) == "/" then
    ngx.header.set_cookie = string.format("%s=1; Path=/; Secure; HttpOnly; SameSite=None; Max-Age=%d", cookie, remembered)
    return ngx.redirect("https://" .. var.told_host .. var.args, 303)
  end
  local is_page = (var.http_accept or ""):find("text/html", 1, true) and (var.http_sec_fetch_mode or "navigate") == "navigate"
  if is_page and var["cookie_" .. cookie] ~= "1" then return ngx.exec "@notice" end
end

return notice
