"""`python -m benchmarks --preset=gpu-compile`: the benchmarks that have presets. The others are programs of their own."""

from benchmarks import compile

if __name__ == "__main__":
    compile.main()
