"""Makes tests/golden/images_odd: small files of every kind, and what Pillow makes of them (EXPECTED.png)."""
from PIL import Image, ImageOps
import io, numpy as np, struct, zlib, pathlib
out = pathlib.Path("tests/golden/images_odd"); out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(5)
W, H = 29, 21
y, x = np.mgrid[0:H, 0:W]
base = np.stack([x*255//W, y*255//H, ((x//4+y//4)%2)*200+20], -1).astype(np.uint8)
base[3:9, 5:16] = rng.integers(0, 256, (6, 11, 3))
rgb = Image.fromarray(base)
alpha = Image.fromarray(((x*9+y*5) % 256).astype(np.uint8))
def to_rgb(im):
    if "A" in im.getbands() or im.info.get("transparency") is not None:
        im = im.convert("RGBA"); bg = Image.new("RGBA", im.size, (255,)*4)
        return Image.alpha_composite(bg, im).convert("RGB")
    return im.convert("RGB")
def add(name, data, expected=None):
    (out/name).write_bytes(data)
    if expected is None:
        im = Image.open(io.BytesIO(data)); im.load(); expected = to_rgb(ImageOps.exif_transpose(im))
    expected.save(out/(name+".expected.png"), optimize=True)
def save(name, im, fmt, **kw):
    b = io.BytesIO(); im.save(b, fmt, **kw); add(name, b.getvalue())
def ch(t, d): return struct.pack('>I', len(d))+t+d+struct.pack('>I', zlib.crc32(t+d))
def png(w, h, depth, ct, rows, extra=b'', interlace=0, tail=b''):
    return b'\x89PNG\r\n\x1a\n'+ch(b'IHDR', struct.pack('>IIBBBBB', w, h, depth, ct, 0, 0, interlace))+extra+ch(b'IDAT', zlib.compress(rows, 9))+tail+ch(b'IEND', b'')
def pack(samples, depth):  # [h, n] -> rows with filter 0
    r = b''
    for row in samples:
        if depth == 16: r += b'\0'+row.astype('>u2').tobytes()
        elif depth == 8: r += b'\0'+row.astype(np.uint8).tobytes()
        else:
            bits = ''.join(format(int(v), f'0{depth}b') for v in row); bits += '0'*(-len(bits) % 8)
            r += b'\0'+bytes(int(bits[i:i+8], 2) for i in range(0, len(bits), 8))
    return r
def adam7(samples, depth, c):  # samples [h, w, c]
    r = b''
    for (sx, sy, dx, dy) in ((0,0,8,8),(4,0,8,8),(0,4,4,8),(2,0,4,4),(0,2,2,4),(1,0,2,2),(0,1,1,2)):
        s = samples[sy::dy, sx::dx]
        if s.size: r += pack(s.reshape(s.shape[0], -1), depth)
    return r
# JPEG
save("cmyk.jpg", rgb.convert("CMYK"), "JPEG", quality=90)
ink = Image.fromarray(((x*255//W)*(y % 3 > 0)).astype(np.uint8))
save("cmyk_ink.jpg", Image.merge("CMYK", (*rgb.split(), ink)), "JPEG", quality=100)
save("grey.jpg", rgb.convert("L"), "JPEG")
save("progressive.jpg", rgb, "JPEG", progressive=True, quality=70)
save("subsampled_420.jpg", rgb, "JPEG", subsampling=2)
save("subsampled_422.jpg", rgb, "JPEG", subsampling=1)
save("rgb_444.jpg", rgb, "JPEG", subsampling=0, quality=95)
save("restart.jpg", rgb, "JPEG", restart_marker_blocks=1)
# YCCK: the CMYK file with the Adobe transform flag set to 2 is read as YCCK.
b = (out/"cmyk.jpg").read_bytes(); i = b.find(b"Adobe")
assert i > 0, "no Adobe marker"
add("ycck.jpg", b[:i+11]+b"\x02"+b[i+12:])
for o in range(1, 9):
    e = Image.Exif(); e[0x0112] = o
    save(f"exif{o}.jpg", rgb, "JPEG", exif=e)
# PNG
noise16 = (rng.integers(0, 65536, (H, W, 4))).astype(np.uint16)
save("palette.png", rgb.quantize(13), "PNG")
p = rgb.quantize(16); b = io.BytesIO(); p.save(b, "PNG", transparency=bytes([0, 17, 128, 254]+[255]*3)); add("palette_trns.png", b.getvalue())
save("grey_alpha.png", Image.merge("LA", (rgb.convert("L"), alpha)), "PNG")
im = rgb.copy(); im.putalpha(alpha); save("rgba.png", im, "PNG")
ramp = np.zeros((256, 256, 4), np.uint8); ramp[..., 0] = np.arange(256)[None]; ramp[..., 1] = 255-ramp[..., 0]; ramp[..., 2] = 77; ramp[..., 3] = np.arange(256)[:, None]
save("alpha_ramp.png", Image.fromarray(ramp), "PNG", optimize=True)
save("one_bit.png", rgb.convert("1"), "PNG")
add("rgb16.png", png(W, H, 16, 2, pack(noise16[..., :3].reshape(H, -1), 16)))
add("rgba16.png", png(W, H, 16, 6, pack(noise16.reshape(H, -1), 16)))
add("grey_alpha16.png", png(W, H, 16, 4, pack(noise16[..., :2].reshape(H, -1), 16)))
g16 = noise16[..., 0]
# Pillow clips 16-bit grey at 255 (all white); what every viewer shows is the high byte.
add("grey16.png", png(W, H, 16, 0, pack(g16, 16)), Image.fromarray(np.repeat((g16 >> 8).astype(np.uint8)[..., None], 3, -1)))
for d in (2, 4):
    s = (noise16[..., 1] >> (16-d)); add(f"grey{d}.png", png(W, H, d, 0, pack(s, d)))
    pal = bytes(rng.integers(0, 256, 3*(1 << d)).astype(np.uint8)); add(f"palette{d}.png", png(W, H, d, 3, pack(s, d), ch(b'PLTE', pal)))
g8 = base[..., 2]
add("grey_trns.png", png(W, H, 8, 0, pack(g8, 8), ch(b'tRNS', struct.pack('>H', 220))))
add("rgb_trns.png", png(W, H, 8, 2, pack(base.reshape(H, -1), 8), ch(b'tRNS', struct.pack('>HHH', *map(int, base[4, 7])))))
# Pillow compares the unscaled tRNS value with scaled levels; the PNG specification is followed here.
s = noise16[..., 2] >> 14; e = np.where(s == 2, 255, s*85).astype(np.uint8)
add("grey2_trns.png", png(W, H, 2, 0, pack(s, 2), ch(b'tRNS', struct.pack('>H', 2))), Image.fromarray(np.repeat(e[..., None], 3, -1)))
# A tRNS colour of 16-bit RGB is compared at 16 bits.
k = noise16[..., :3].copy(); k[5:9, 5:9] = (1000, 2000, 3000); k[10:12] = (1001, 2000, 3000); e = (k >> 8).astype(np.uint8); e[5:9, 5:9] = 255
add("rgb16_trns.png", png(W, H, 16, 2, pack(k.reshape(H, -1), 16), ch(b'tRNS', struct.pack('>HHH', 1000, 2000, 3000))), Image.fromarray(e))
add("interlaced_rgb.png", png(W, H, 8, 2, adam7(base, 8, 3), interlace=1))
rgba = np.dstack([base, np.array(alpha)]); add("interlaced_rgba.png", png(W, H, 8, 6, adam7(rgba, 8, 4), interlace=1))
add("interlaced_grey1.png", png(W, H, 1, 0, adam7((g8 > 100).astype(np.uint8)[..., None], 1, 1), interlace=1))
add("interlaced_rgb16.png", png(W, H, 16, 2, adam7(noise16[..., :3], 16, 3), interlace=1))
add("interlaced_1x1.png", png(1, 1, 8, 2, adam7(base[:1, :1], 8, 3), interlace=1))
ex = Image.Exif(); ex[0x0112] = 6
save("exif6.png", rgb, "PNG", exif=ex)
add("exif8_after_pixels.png", png(W, H, 8, 2, pack(base.reshape(H, -1), 8), tail=ch(b'eXIf', b'MM\0*\0\0\0\x08\0\1\x01\x12\0\x03\0\0\0\1\0\x08\0\0\0\0\0\0')))
# WebP
save("lossy.webp", rgb, "WEBP", quality=60)
save("lossless.webp", rgb, "WEBP", lossless=True)
save("lossy_alpha.webp", im, "WEBP", quality=70)
save("lossless_alpha.webp", im, "WEBP", lossless=True)
save("exif3.webp", rgb, "WEBP", quality=50, exif=(lambda e: (e.__setitem__(0x0112, 3), e)[1])(Image.Exif()))
b = io.BytesIO(); rgb.save(b, "WEBP", save_all=True, append_images=[ImageOps.invert(rgb)], lossless=True); add("animated.webp", b.getvalue())
# An animation whose first frame covers part of the canvas.
def riff(*chunks):
    body = b"WEBP"+b"".join(t+struct.pack("<I", len(d))+d+b"\0"*(len(d) & 1) for t, d in chunks); return b"RIFF"+struct.pack("<I", len(body))+body
def u24(v): return struct.pack("<I", v)[:3]
for name, flags in (("animated_part.webp", 0x02), ("animated_part_alpha.webp", 0x12)):
    b = io.BytesIO(); (im if flags & 0x10 else rgb).save(b, "WEBP", lossless=True); v = b.getvalue()
    at = v.find(b"VP8L"); n = struct.unpack("<I", v[at+4:at+8])[0]; sub = v[at+8:at+8+n]
    frame = u24(2)+u24(3)+u24(W-1)+u24(H-1)+u24(100)+b"\0"+b"VP8L"+struct.pack("<I", n)+sub+b"\0"*(n & 1)
    add(name, riff((b"VP8X", bytes([flags, 0, 0, 0])+u24(W+9)+u24(H+11)), (b"ANIM", b"\xff\xff\xff\xff\0\0"), (b"ANMF", frame), (b"ANMF", frame)))
print(sum(f.stat().st_size for f in out.iterdir()), len(list(out.iterdir())))
