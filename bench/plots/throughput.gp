load "bench/plots/style.gp"
set title "64 B reads at random, all processes together"
set xlabel "processes"
set ylabel "million reads a second, median"
set xtics (1, 2, 4)
set xrange [0.8:4.2]
set yrange [0:*]
set grid ytics linecolor "#b0808080"
set style data linespoints
plot for [column=2:*] data using 1:column linewidth 2 pointtype 7 pointsize 0.6 title columnheader(column)
