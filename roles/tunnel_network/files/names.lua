-- SPDX-License-Identifier: GPL-3.0-or-later
-- A name's address: fd74: and the first 14 bytes of the SHA-256 of the name. Shared by the resolver and by nginx.
local ffi = require "ffi"
ffi.cdef "unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);"
local crypto = ffi.load "libcrypto.so.3"
local digest = ffi.new "unsigned char[32]"
local names = {}

-- One label that starts with a letter, then a-z, 0-9 and single hyphens, at most 63; so nothing that could be read as a number is a name.
function names.valid(name)
  return #name <= 63 and name:match "^%l[%l%d-]*$" ~= nil and not name:find("--", 1, true) and name:sub(-1) ~= "-"
end

function names.address(name)
  crypto.SHA256(name, #name, digest)
  local parts = { "fd74" }
  for i = 0, 12, 2 do
    parts[#parts + 1] = string.format("%02x%02x", digest[i], digest[i + 1])
  end
  return table.concat(parts, ":")
end

return names
