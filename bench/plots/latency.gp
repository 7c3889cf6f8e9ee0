load "bench/plots/style.gp"
set title "One random read in a hot 64 MiB file"
set xlabel "bytes"
set ylabel "nanoseconds, median"
set logscale xy
set xtics ("8 B" 8, "64 B" 64, "4 KB" 4096, "64 KB" 65536, "1 MB" 1048576)
set xrange [5:1700000]
set format y "%'g"
set grid ytics xtics linecolor "#b0808080"
set style data linespoints
plot for [column=2:*] data using 1:column linewidth 2 pointtype 7 pointsize 0.6 title columnheader(column)
