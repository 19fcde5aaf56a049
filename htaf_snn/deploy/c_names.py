"""Names that a function of a C file cannot have: keywords, and what C99 declares."""

from __future__ import annotations

import re

_KEYWORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while main
"""
_STRING = """
    memchr memcmp memcpy memmove memset strcat strchr strcmp strcoll strcpy strcspn strerror strlen strncat strncmp
    strncpy strpbrk strrchr strspn strstr strtok strxfrm NULL size_t
"""
_BUILT_IN = """
    abort abs calloc exit free imaxabs labs llabs malloc realloc
    feclearexcept fegetenv fegetround feholdexcept feraiseexcept fesetenv fesetround fetestexcept feupdateenv strftime
    fprintf fputc fputs fscanf fwrite printf putc putchar puts scanf snprintf sprintf sscanf vfprintf vfscanf vprintf
    vscanf vsnprintf vsprintf vsscanf
    isalnum isalpha isblank iscntrl isdigit isgraph islower isprint ispunct isspace isupper isxdigit tolower toupper
    iswalnum iswalpha iswblank iswcntrl iswdigit iswgraph iswlower iswprint iswpunct iswspace iswupper iswxdigit
    towlower towupper
"""
"""Functions of other headers of C99 that compilers know without them, apart from those of floats."""
_OF_FLOATS = """
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim floor fma fmax
    fmin fmod frexp hypot ilogb ldexp lgamma llrint llround log log10 log1p log2 logb lrint lround modf nan nearbyint
    nextafter nexttoward pow remainder remquo rint round scalbln scalbn sin sinh sqrt tan tanh tgamma trunc
    cabs cacos cacosh carg casin casinh catan catanh ccos ccosh cexp cimag clog conj cpow cproj creal csin csinh csqrt
    ctan ctanh
"""
"""Functions of <math.h> and <complex.h>, which there are for float and long double too."""
_TYPES = re.compile(
    r"u?int((_least|_fast)?(8|16|32|64)|ptr|max)_t"
    r"|U?INT((_LEAST|_FAST)?(8|16|32|64)|PTR|MAX)_(MIN|MAX|C)"
    r"|(S?CHAR|SHRT|INT|L?LONG|PTRDIFF|SIG_ATOMIC|WCHAR|WINT)_(MIN|MAX)"
    r"|(UCHAR|USHRT|UINT|UL?LONG|SIZE|MB_LEN)_MAX|CHAR_BIT"
)
"""What <stdint.h> and <limits.h> define."""
_NAMES = {*_KEYWORDS.split(), *_STRING.split(), *_BUILT_IN.split()}
_NAMES |= {f"{name}{suffix}" for name in _OF_FLOATS.split() for suffix in ("", "f", "l")}


def is_of_c(name: str) -> bool:
    """Return whether C99 reserves a name, or a file declares it that includes limits.h, stdint.h and string.h."""
    return name in _NAMES or bool(_TYPES.fullmatch(name) or re.match("_[_A-Z]", name))
