/* core/arguments.h - a macro applied to each argument of a list, such as those of core/kernels.def.
 *
 *     MB_EACH(f, (a, b, c))       f(a), f(b), f(c)        up to thirteen
 */
#ifndef MB_CORE_ARGUMENTS_H
#define MB_CORE_ARGUMENTS_H

#define MB_EACH(f, list) MB_EACH_(f, MB_UNWRAP list)
#define MB_UNWRAP(...)   __VA_ARGS__
#define MB_EACH_(f, ...) MB_EACH__(f, __VA_ARGS__)
#define MB_EACH__(f, ...)                                                                          \
    MB_PICK(__VA_ARGS__, MB_E13, MB_E12, MB_E11, MB_E10, MB_E9, MB_E8, MB_E7, MB_E6, MB_E5, MB_E4, \
            MB_E3, MB_E2, MB_E1)                                                                   \
    (f, __VA_ARGS__)
#define MB_PICK(a, b, c, d, e, f, g, h, i, j, k, l, m, pick, ...) pick
#define MB_E1(f, x)                                               f(x)
#define MB_E2(f, x, ...)                                          f(x), MB_E1(f, __VA_ARGS__)
#define MB_E3(f, x, ...)                                          f(x), MB_E2(f, __VA_ARGS__)
#define MB_E4(f, x, ...)                                          f(x), MB_E3(f, __VA_ARGS__)
#define MB_E5(f, x, ...)                                          f(x), MB_E4(f, __VA_ARGS__)
#define MB_E6(f, x, ...)                                          f(x), MB_E5(f, __VA_ARGS__)
#define MB_E7(f, x, ...)                                          f(x), MB_E6(f, __VA_ARGS__)
#define MB_E8(f, x, ...)                                          f(x), MB_E7(f, __VA_ARGS__)
#define MB_E9(f, x, ...)                                          f(x), MB_E8(f, __VA_ARGS__)
#define MB_E10(f, x, ...)                                         f(x), MB_E9(f, __VA_ARGS__)
#define MB_E11(f, x, ...)                                         f(x), MB_E10(f, __VA_ARGS__)
#define MB_E12(f, x, ...)                                         f(x), MB_E11(f, __VA_ARGS__)
#define MB_E13(f, x, ...)                                         f(x), MB_E12(f, __VA_ARGS__)

#endif
